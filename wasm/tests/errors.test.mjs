// What errors say, and which arguments are refused.
import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { test } from 'node:test';

import { SecretError, Verifier, VerifyError } from 'pleo-webhook-verify';
import { NOW, OTHER_SECRET, SECRET, signed } from './support.mjs';

const BODY = '{}';

function rejection(run) {
  try {
    run();
  } catch (error) {
    return error;
  }
  return assert.fail('nothing was thrown');
}

const errorOf = (headers, now = NOW, secret = SECRET) =>
  rejection(() => new Verifier(secret).verify(headers, BODY, now));

test('a stale timestamp is reported with skew and tolerance', () => {
  const old = errorOf(signed(BODY), NOW + 301);
  assert.ok(old instanceof VerifyError && old instanceof Error);
  assert.deepEqual([old.code, old.skew, old.tolerance], ['timestamp_too_old', 301, 300]);
  assert.equal(old.message, 'the webhook timestamp is 301 s in the past; the tolerance is 300 s');
  const early = errorOf(signed(BODY), NOW - 301);
  assert.deepEqual([early.code, early.skew], ['timestamp_too_new', 301]);
});

test('a missing and a duplicated header are named', () => {
  const { 'webhook-timestamp': _, ...headers } = signed(BODY);
  const missing = errorOf(headers);
  assert.deepEqual([missing.code, missing.header], ['missing_header', 'timestamp']);
  const duplicated = errorOf({ ...signed(BODY), 'webhook-id': ['msg_1', 'msg_1'] });
  assert.deepEqual([duplicated.code, duplicated.header], ['duplicate_header', 'id']);
  const twice = errorOf([...Object.entries(signed(BODY)), ['Webhook-Signature', 'v1,x']]);
  assert.deepEqual([twice.code, twice.header], ['duplicate_header', 'signature']);
});

test('an Ed25519 signature is explained', () => {
  const error = errorOf({ ...signed(BODY), 'webhook-signature': 'v1a,AAAA' });
  assert.deepEqual([error.code, error.v1a], ['no_supported_signature', true]);
  assert.match(error.message, /Ed25519/);
});

test('the headers come from one set', () => {
  const svix = signed(BODY, { prefix: 'svix', id: 'msg_svix' });
  const webhook = signed(BODY);
  const verifier = new Verifier(SECRET);
  assert.equal(verifier.verify({ ...svix, ...webhook }, BODY, NOW).id, 'msg_1');
  const { 'webhook-id': _, ...incomplete } = webhook;
  assert.equal(verifier.verify({ ...incomplete, ...svix }, BODY, NOW).id, 'msg_svix');
  const { 'svix-id': __, ...mixed } = svix;
  assert.equal(errorOf({ 'webhook-id': 'msg_1', ...mixed }).code, 'missing_header');
});

test('each malformed secret gets a code and a fix', () => {
  const key = SECRET.slice('whsec_'.length);
  const cases = {
    empty: '', whitespace: `${SECRET}\n`, quotes: `"${SECRET}"`, version: `v1,${SECRET}`,
    private_key: 'whsk_AAAA', public_key: 'whpk_AAAA', missing_prefix: key,
    too_long: `whsec_${'A'.repeat(104)}`, url_safe: 'whsec_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_',
    unpadded: SECRET.slice(0, -2), invalid_base64: `whsec_${key.slice(0, -1)}!`, too_short: 'whsec_AAAA',
  };
  for (const [code, text] of Object.entries(cases)) {
    const error = rejection(() => new Verifier([SECRET, text]));
    assert.ok(error instanceof SecretError, `${code}: ${error}`);
    assert.deepEqual([error.code, error.index], [code, 1]);
    assert.match(error.message, /^the secret .*;/);
    assert.ok(text.length < 8 || !error.message.includes(text.slice(7)));
  }
});

test('an unset secret is reported as one', () => {
  for (const unset of [undefined, null]) {
    const error = rejection(() => new Verifier(unset));
    assert.ok(error instanceof SecretError, String(error));
    assert.deepEqual([error.code, error.index], ['empty', 0]);
    assert.match(error.message, /environment variable is not set/);
    const second = rejection(() => new Verifier([SECRET, unset]));
    assert.ok(second instanceof TypeError, String(second));
    assert.equal(second.message, 'a secret is not a string; is its environment variable set?');
  }
});

test('an inherited tolerance is ignored', () => {
  Object.prototype.tolerance = 10 ** 12;
  try {
    for (const options of [undefined, {}]) {
      const verifier = new Verifier(SECRET, options);
      assert.throws(() => verifier.verify(signed(BODY), BODY, NOW + 301), { code: 'timestamp_too_old', tolerance: 300 });
    }
  } finally {
    delete Object.prototype.tolerance;
  }
  assert.ok(new Verifier(SECRET, { tolerance: 301 }).verify(signed(BODY), BODY, NOW + 301));
});

test('a rotation reports the first matching secret', () => {
  const verifier = new Verifier([OTHER_SECRET, SECRET]);
  assert.equal(verifier.verify(signed(BODY), BODY, NOW).secretIndex, 1);
  assert.equal(verifier.verify(signed(BODY, { secret: OTHER_SECRET }), BODY, NOW).secretIndex, 0);
  const svix = signed(BODY, { prefix: 'svix' });
  assert.equal(verifier.verify(svix, BODY, NOW).secretIndex, 1);
  assert.equal(verifier.begin(svix, NOW).update(BODY).finish().secretIndex, 1);
  assert.throws(() => new Verifier([]), RangeError);
  assert.throws(() => new Verifier(Array(5).fill(SECRET)), RangeError);
  assert.ok(new Verifier(Array(4).fill(SECRET)));
});

test('arguments of a wrong type are refused', () => {
  const verifier = new Verifier(SECRET);
  for (const body of [undefined, null, 1, {}, [], JSON.parse(BODY)]) {
    assert.throws(() => verifier.verify(signed(BODY), body, NOW), TypeError);
  }
  for (const now of [-1, 0.5, NaN, Infinity, '1', 2 ** 53, null, new Date()]) {
    assert.throws(() => verifier.verify(signed(BODY), BODY, now), TypeError);
    assert.throws(() => new Verifier(SECRET, { tolerance: now }), TypeError);
  }
  for (const headers of [undefined, null, 'x', 1]) {
    assert.throws(() => verifier.verify(headers, BODY, NOW), TypeError);
  }
  assert.throws(() => verifier.verify({ 'webhook-id': 1 }, BODY, NOW), TypeError);
  assert.throws(() => new Verifier([Buffer.from(SECRET)]), TypeError);
});

test('the system clock is the default', () => {
  const now = Math.floor(Date.now() / 1000);
  const verifier = new Verifier(SECRET);
  assert.equal(verifier.verify(signed(BODY, { now }), BODY).id, 'msg_1');
  assert.equal(rejection(() => verifier.begin(signed(BODY))).code, 'timestamp_too_old');
});

test('a verifier shows no key', () => {
  const verifier = new Verifier(SECRET);
  const verification = verifier.begin(signed(BODY), NOW);
  for (const object of [verifier, verification]) {
    assert.match(inspect(object, { showHidden: true, depth: 9 }), /^Verif\w+ \{( \[claimedId\]: \[Getter\] )?\}$/);
    assert.equal(JSON.stringify(object), '{}');
  }
});
