// Nothing of one call is left for the next: the tests compare the memory of the module with what it was
// before the first call.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NOW, OTHER_SECRET, SECRET, signed } from './support.mjs';

// Sees the instance that the package makes.
let memory;
let exported;
const { Instance } = WebAssembly;
WebAssembly.Instance = class extends Instance {
  constructor(...args) {
    super(...args);
    // `exports` is the object that the package uses.
    exported = this.exports;
    memory = exported.memory;
  }
};
const { Verifier } = await import('pleo-webhook-verify');
const before = new Uint8Array(memory.buffer).slice();

function assertClean(what) {
  const now = new Uint8Array(memory.buffer);
  const changed = now.findIndex((byte, index) => byte !== (before[index] ?? 0));
  assert.equal(changed, -1, `${what} left byte ${changed}`);
}

const BIG = Buffer.alloc(3 << 20, 'pleo');

test('the memory is as before after each call', () => {
  const body = '{"secret":"payload"}';
  const steps = {
    'a new verifier': () => new Verifier([SECRET, OTHER_SECRET]),
    'a malformed secret': () => new Verifier([SECRET, `whsec_${'x'.repeat(50)}`]),
    'too many secrets': () => new Verifier(Array(5).fill(SECRET)),
    'a valid delivery': () => new Verifier(SECRET).verify(signed(body), body, NOW),
    'a valid delivery in bytes': () => new Verifier(SECRET).verify(signed(body), Buffer.from(body), NOW),
    'a forged delivery': () => new Verifier(SECRET).verify(signed(body), `${body} `, NOW),
    'a stale delivery': () => new Verifier(SECRET).verify(signed(body), body, NOW + 999),
    'a large delivery': () => new Verifier(SECRET).verify(signed(BIG), BIG, NOW),
    'a large forged delivery': () => new Verifier(SECRET).verify(signed(body), BIG, NOW),
    'a large text': () => new Verifier(SECRET).verify(signed(BIG), BIG.toString(), NOW),
    'a long list': () => {
      const headers = signed(body);
      headers['webhook-signature'] = `${'v1,AAAA '.repeat(40_000)}${headers['webhook-signature']}`;
      return new Verifier(SECRET).verify(headers, body, NOW);
    },
    'headers that are too long': () => new Verifier(SECRET).verify({ 'webhook-id': 'x'.repeat(2 << 20) }, '', NOW),
    'a detached body': () => {
      const bytes = new Uint8Array(8);
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
      return new Verifier(SECRET).verify(signed(body), bytes, NOW);
    },
    'a body of a wrong type': () => new Verifier(SECRET).verify(signed(body), {}, NOW),
  };
  let thrown = 0;
  for (const [what, step] of Object.entries(steps)) {
    try {
      step();
    } catch {
      thrown += 1;
    }
    assertClean(what);
  }
  assert.equal(thrown, 8);

  const verification = new Verifier(SECRET).begin(signed(BIG), NOW);
  assertClean('begin');
  verification.update(BIG.subarray(0, 1000));
  assertClean('a small chunk');
  verification.update(BIG.subarray(1000));
  assertClean('a large chunk');
  verification.finish();
  assertClean('finish');
});

// Calls `run` and returns the copies of the module's memory that it makes.
function copiesOf(run) {
  const copies = [];
  const { slice } = Uint8Array.prototype;
  Uint8Array.prototype.slice = function (...args) {
    const copy = slice.apply(this, args);
    if (this.buffer === memory.buffer) copies.push(copy);
    return copy;
  };
  try {
    return [run(), copies];
  } finally {
    Uint8Array.prototype.slice = slice;
  }
}

test('the memory holds keys and headers during a call', () => {
  // Otherwise the test above would prove nothing.
  const [verifier, [keys]] = copiesOf(() => new Verifier(SECRET));
  assert.ok(keys.some((byte) => byte !== 0));
  const seen = [];
  const { set } = Uint8Array.prototype;
  Uint8Array.prototype.set = function (...args) {
    set.apply(this, args);
    if (this.buffer === memory.buffer) seen.push(Buffer.from(memory.buffer.slice(0)));
  };
  try {
    verifier.verify(signed('{}'), Buffer.from('{}'), NOW);
  } finally {
    Uint8Array.prototype.set = set;
  }
  assert.ok(seen.some((bytes) => bytes.includes(Buffer.from(keys)) && bytes.includes('msg_1')));
});

test('copies of keys and streams are overwritten after their use', () => {
  const [verifier, [keys]] = copiesOf(() => new Verifier(SECRET));
  const [stream, [state]] = copiesOf(() => verifier.begin(signed('{}'), NOW).update('{}'));
  const [forged, [other]] = copiesOf(() => verifier.begin(signed('{}'), NOW).update('{'));
  const isWiped = (copy) => copy.every((byte) => byte === 0);
  assert.ok(![keys, state, other].some(isWiped));
  stream.finish();
  assert.throws(() => forged.finish(), { code: 'signature_mismatch' });
  verifier.dispose();
  assert.ok([keys, state, other].every(isWiped));
});

test('interleaved streams of two verifiers do not mix', () => {
  const bodies = [Buffer.alloc(200_000, 'a'), Buffer.alloc(150_001, 'b'), Buffer.alloc(77, 'c')];
  const verifiers = [new Verifier(SECRET), new Verifier([OTHER_SECRET])];
  const secrets = [SECRET, OTHER_SECRET];
  const streams = [];
  for (let index = 0; index < 200; index += 1) {
    const body = bodies[index % bodies.length];
    const secret = secrets[index % 2];
    const headers = signed(body, { secret, id: `msg_${index}`, prefix: index % 3 ? 'webhook' : 'svix' });
    // Each fifth is signed with the secret of the other verifier.
    const verifier = verifiers[(index + (index % 5 === 0)) % 2];
    streams.push({ index, body, at: 0, verification: verifier.begin(headers, NOW) });
  }
  for (let round = 1; streams.some(({ at, body }) => at < body.length); round += 1) {
    for (const stream of streams) {
      const size = 9973 + ((stream.index * 31 + round * 17) % 5000);
      stream.verification.update(stream.body.subarray(stream.at, stream.at + size));
      stream.at += size;
    }
  }
  for (const { index, verification } of streams) {
    if (index % 5 === 0) {
      assert.throws(() => verification.finish(), { code: 'signature_mismatch' });
    } else {
      const { id, secretIndex, body } = verification.finish();
      assert.deepEqual({ id, secretIndex, body }, { id: `msg_${index}`, secretIndex: 0, body: undefined });
    }
  }
  assertClean('200 streams');
});

test('a call inside the conversion of arguments does not disturb the outer one', () => {
  const verifier = new Verifier(SECRET);
  const other = new Verifier(OTHER_SECRET);
  const headers = signed('outer', { id: 'msg_outer' });
  let inner = 0;
  const nosy = function* () {
    for (const pair of Object.entries(headers)) {
      inner += other.verify(signed('inner', { secret: OTHER_SECRET }), 'inner', NOW).id === 'msg_1';
      yield pair;
    }
  };
  assert.equal(verifier.verify(nosy(), 'outer', NOW).id, 'msg_outer');
  assert.equal(verifier.begin(nosy(), NOW).update('outer').finish().id, 'msg_outer');
  assert.equal(inner, 6);
});

test('a body larger than the memory is taken in pieces', () => {
  const verifier = new Verifier(SECRET);
  const text = 'aé€🌼'.repeat(150_000);
  const size = memory.buffer.byteLength;
  for (const prefix of ['webhook', 'svix']) {
    for (const body of [BIG, BIG.toString(), text, Buffer.from(text), new DataView(BIG.buffer.slice(0))]) {
      const bytes = body instanceof DataView ? Buffer.from(body.buffer) : body;
      assert.equal(verifier.verify(signed(bytes, { prefix }), body, NOW).body, body);
      const forged = signed(Buffer.concat([Buffer.from(bytes), Buffer.from('x')]), { prefix });
      assert.throws(() => verifier.verify(forged, body, NOW), { code: 'signature_mismatch' });
    }
  }
  assert.ok(size < BIG.length && memory.buffer.byteLength === size, 'the memory did not grow');
});

test('a body near the end of the memory is taken', () => {
  const verifier = new Verifier(SECRET);
  const room = memory.buffer.byteLength - exported.__heap_base.value;
  for (let len = room - 200; len <= room + 3; len += 1) {
    const body = Buffer.alloc(len, 'z');
    assert.equal(verifier.verify(signed(body), body, NOW).id, 'msg_1');
    assert.throws(() => verifier.verify(signed('y'), body, NOW), { code: 'signature_mismatch' });
  }
  assertClean('bodies near the end');
});

test('a stream ends once', () => {
  const verification = new Verifier(SECRET).begin(signed('{}'), NOW);
  assert.equal(verification.claimedId, 'msg_1');
  verification.update('{}').finish();
  assert.throws(() => verification.finish(), /finished/);
  assert.throws(() => verification.update('{}'), /finished/);
});

test('a disposed verifier has no keys', () => {
  const verifier = new Verifier(SECRET);
  const begun = verifier.begin(signed('{}'), NOW).update('{}');
  verifier.dispose();
  verifier.dispose();
  assert.throws(() => verifier.verify(signed('{}'), '{}', NOW), /disposed/);
  assert.throws(() => verifier.begin(signed('{}'), NOW), /disposed/);
  assert.equal(begun.finish().id, 'msg_1');
  assertClean('a disposed verifier');
});

test('a trap leaves the module usable', () => {
  const verifier = new Verifier(SECRET);
  for (let round = 0; round < 1000; round += 1) {
    assert.throws(() => exported.create(300, 0xffff0000, 0xffff), WebAssembly.RuntimeError);
    assert.equal(verifier.verify(signed('{}'), '{}', NOW).id, 'msg_1');
  }
  assertClean('traps');
});
