import { readFileSync } from 'node:fs';
import { createHmac } from 'node:crypto';

const read = (path) => readFileSync(new URL(path, import.meta.url), 'utf8');

// The names of the files in `vectors/`.
export const FILES = ['verify', 'headers', 'secrets', 'captured'];
export const vectors = Object.fromEntries(
  FILES.map((name) => [name, JSON.parse(read(`../../vectors/${name}.json`))]));
export const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
export const OTHER_SECRET = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD';
export const NOW = 1614265330;

export function sourceOf(path) {
  return read(path);
}

// Returns the headers of a delivery, as the sender makes them.
export function signed(body, { secret = SECRET, id = 'msg_1', prefix = 'webhook', now = NOW } = {}) {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
  const tag = createHmac('sha256', key).update(`${id}.${now}.`).update(body).digest('base64');
  return {
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(now),
    [`${prefix}-signature`]: `v1,${tag}`,
  };
}
