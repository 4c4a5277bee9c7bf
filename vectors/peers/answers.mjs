// Prints what the JavaScript peers answer to the conformance vectors, as JSON. Arguments: the folder of the
// vectors, and the time.
import { readFileSync } from 'node:fs';

import * as standardwebhooks from 'standardwebhooks';
import * as svix from 'svix';

const [folder, time] = process.argv.slice(2);
const now = Number(time);
Date.now = () => now * 1000;

const read = (name) => JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8'));
const TOLERANCE = 300;
const NAMES = ['webhook-id', 'webhook-timestamp', 'webhook-signature'];

const peers = {
  standardwebhooks: [
    standardwebhooks,
    (secret, body, headers) => new standardwebhooks.Webhook(secret).verify(body, headers, { jsonParse: false }),
  ],
  svix: [svix, (secret, body, headers) => new svix.Webhook(secret).verify(body, headers)],
};

// Runs a check. Errors that are not the library's own are named.
function answer({ WebhookVerificationError }, run) {
  try {
    run();
    return 'accepts';
  } catch (error) {
    return error instanceof WebhookVerificationError ? 'rejects' : `rejects (${error.name})`;
  }
}

// Returns an object of headers, as Node makes it; undefined if it cannot be one.
function asObject(pairs) {
  const object = {};
  for (const [name, value] of pairs) {
    const key = name.toLowerCase();
    // Control characters are not valid in HTTP, and an object has no duplicates.
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(value) || key in object) return undefined;
    object[key] = value;
  }
  return object;
}

const deliveries = read('verify').cases.filter((one) => one.now === now && one.tolerance === TOLERANCE);
const requests = read('headers');
const secrets = requests.now === now ? read('secrets').cases : [];

const answers = {};
for (const [peer, [library, verify]] of Object.entries(peers)) {
  const found = (answers[peer] = {});
  for (const { name, secrets: all, body_b64: body, ...fields } of deliveries) {
    const values = ['id_b64', 'timestamp_b64', 'signature_b64'].map((field) => fields[field]);
    const pairs = NAMES.map((header, index) => [header, values[index]]).filter(([, value]) => value !== null);
    const headers = asObject(pairs.map(([header, value]) => [header, atob(value)]));
    if (!headers) continue;
    const each = all.map((secret) => answer(library, () => verify(secret, Buffer.from(body, 'base64'), headers)));
    found[`verify/${name}`] = each.includes('accepts') ? 'accepts' : each[0];
  }
  for (const { name, headers: pairs } of requests.now === now ? requests.cases : []) {
    const headers = asObject(pairs);
    if (!headers) continue;
    found[`headers/${name}`] = answer(library, () => verify(requests.secret, Buffer.from(requests.body), headers));
  }
  for (const { name, secret } of secrets) {
    try {
      new library.Webhook(secret);
      found[`secrets/${name}`] = 'accepts';
    } catch {
      found[`secrets/${name}`] = 'rejects';
    }
  }
}
console.log(JSON.stringify(answers));
