import { readFileSync } from 'node:fs';
import { createHmac } from 'node:crypto';

const read = (path) => readFileSync(new URL(path, import.meta.url), 'utf8');

export const vectors = JSON.parse(read('../../vectors/verify.json'));
export const captured = JSON.parse(read('../../vectors/captured.json'));
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
