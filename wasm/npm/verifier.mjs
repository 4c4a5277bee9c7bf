// Verifies webhooks by `verify.wasm`. The entries (`node.cjs`, `web.mjs`, …) load the module.
//
// Nothing stays in the memory of the module after a call: `clean` overwrites all that the call wrote.
// Keys and unfinished streams are copies of the module's state, in private fields. No code of the
// caller runs while the memory is in use: arguments are converted before.

const HEADERS = [
  'webhook-id', 'webhook-timestamp', 'webhook-signature', 'svix-id', 'svix-timestamp', 'svix-signature',
];
const HEADER_NAMES = ['id', 'timestamp', 'signature'];

// By the number of the code below 0, as in `codes.rs`.
const DELIVERY_ERRORS = [
  ,
  ['duplicate_header', (error) => `the webhook ${error.header} header is duplicated`],
  ['missing_header', (error) => `the webhook ${error.header} header is missing`],
  ['invalid_id', () => 'the webhook id is not 1 to 256 visible ASCII characters without a full stop'],
  ['invalid_timestamp', () => 'the webhook timestamp is not a plain decimal number of Unix seconds'],
  ['timestamp_too_old', (error) => `the webhook timestamp is ${error.skew} s in the past; the tolerance is ${error.tolerance} s`],
  ['timestamp_too_new', (error) => `the webhook timestamp is ${error.skew} s in the future; the tolerance is ${error.tolerance} s`],
  ['no_supported_signature', (error) => `the webhook signature header has no \`v1\` signature${error.v1a ? ', only `v1a` (Ed25519), which a `Verifier` does not take; use a subscription with a `whsec_…` secret' : ''}`],
  ['signature_mismatch', () => 'no signature matches the id, timestamp and body'],
];
const SECRET_ERRORS = {
  11: ['empty', 'is empty, or its environment variable is not set; set it to the subscription\'s `whsec_…` secret'],
  12: ['whitespace', 'begins or ends with white space; remove the white space'],
  13: ['quotes', 'is in quotes; remove the quotes'],
  14: ['version', 'begins with a version; remove everything before `whsec_`'],
  15: ['private_key', 'is an Ed25519 private key (`whsk_`), which a `Verifier` does not take; use the subscription\'s `whsec_…` secret'],
  16: ['public_key', 'is an Ed25519 public key (`whpk_`), which a `Verifier` does not take; use the subscription\'s `whsec_…` secret'],
  17: ['missing_prefix', 'does not begin with `whsec_`; copy the complete secret with its prefix'],
  18: ['too_long', 'has a key longer than 75 bytes; set one secret and nothing else'],
  19: ['url_safe', 'is in URL-safe base64; after `whsec_`, replace `-` with `+` and `_` with `/`'],
  20: ['unpadded', 'is cut off or lacks `=` padding; copy the complete secret, or append `=` until the length after `whsec_` is a multiple of 4'],
  21: ['invalid_base64', 'is not standard base64 after `whsec_`; copy the complete secret and nothing else'],
  22: ['too_short', 'has a key shorter than 24 bytes; copy the complete secret'],
};
const NO_SECRET = -30, TOO_MANY_SECRETS = -31;

const PAGE = 65536;
// The part of the memory that a piece of a body gets at least.
const MIN_PIECE = 16384;
const MAX_RECORDS = 1 << 20;

const encoder = new TextEncoder();
let compiled, wasm, memory, stack, stateAt, emptyState, inputAt;

// Takes the compiled module. Each entry calls it once.
export function load(module) {
  compiled = module;
  instantiate();
}

/** The error of a rejected delivery. `code` names the first check that failed. */
export class VerifyError extends Error {
  constructor(code, detail, tolerance) {
    const [name, message] = DELIVERY_ERRORS[-code] ?? ['unknown', () => `unknown error ${code}`];
    super();
    this.name = 'VerifyError';
    this.code = name;
    if (code >= -2) this.header = HEADER_NAMES[detail];
    if (code === -5 || code === -6) {
      this.skew = detail;
      this.tolerance = tolerance;
    }
    if (code === -7) this.v1a = detail === 1;
    this.message = message(this);
  }
}

/** The error of a malformed secret. The message says how to fix it, and shows no part of the secret. */
export class SecretError extends Error {
  constructor(code, index) {
    const [name, message] = SECRET_ERRORS[-code];
    super(`the secret ${message}`);
    this.name = 'SecretError';
    this.code = name;
    this.index = index;
  }
}

export class Verifier {
  #state;
  #tolerance;

  constructor(secrets, options) {
    const texts = typeof secrets === 'string' ? [secrets] : Array.from(secrets ?? ['']);
    for (const text of texts) {
      if (typeof text !== 'string') {
        throw new TypeError('a secret is not a string; is its environment variable set?');
      }
    }
    // Only an own property counts: `Object.prototype` may be polluted.
    const { tolerance = 300 } = { __proto__: null, ...options };
    seconds(tolerance, 'the tolerance');
    const end = inputAt + size(texts);
    try {
      reserve(end);
      const code = wasm.create(tolerance, inputAt, writeRecords(texts, texts) - inputAt);
      if (code === NO_SECRET) throw new RangeError('a verifier needs a secret; set at least one');
      if (code === TOO_MANY_SECRETS) {
        throw new RangeError('a verifier has at most 4 secrets; remove those that were rotated out');
      }
      if (code < 0) {
        const index = Math.floor(-code / 100);
        throw new SecretError(code + 100 * index, index);
      }
      this.#state = keepState();
    } finally {
      clean(end);
    }
    this.#tolerance = tolerance;
  }

  verify(headers, body, now = unixNow()) {
    const found = find(headers);
    seconds(now, 'the time');
    const bytes = toBytes(body);
    const length = bytes.length;
    const end = inputAt + size(found.values);
    let top = end;
    let index;
    try {
      reserve(end);
      this.#restore();
      const at = writeRecords(found.kinds, found.values);
      top = memory.length;
      // A character of a string takes up to 3 bytes.
      if (length * (typeof bytes === 'string' ? 3 : 1) <= memory.length - at) {
        const written = write(bytes, at);
        top = at + written;
        index = wasm.verify(now, inputAt, at - inputAt, at, written);
      } else {
        index = wasm.begin(now, inputAt, at - inputAt);
        if (index >= 0) {
          feed(bytes, at);
          const secret = wasm.finish();
          index = secret < 0 ? secret : index + secret;
        }
      }
      if (index < 0) this.#fail(index);
    } finally {
      clean(top);
    }
    return verified(found, index, body);
  }

  begin(headers, now = unixNow()) {
    const found = find(headers);
    seconds(now, 'the time');
    const end = inputAt + size(found.values);
    try {
      reserve(end);
      this.#restore();
      const at = writeRecords(found.kinds, found.values);
      const set = wasm.begin(now, inputAt, at - inputAt);
      if (set < 0) this.#fail(set);
      return new Verification(found, set, keepState(), memory.slice(inputAt, at));
    } finally {
      clean(end);
    }
  }

  dispose() {
    this.#state?.fill(0);
    this.#state = undefined;
  }

  #restore() {
    if (!this.#state) throw new Error('the verifier is disposed of');
    memory.set(this.#state, stateAt);
  }

  #fail(code) {
    throw new VerifyError(code, wasm.detail(), this.#tolerance);
  }
}

// A delivery whose headers are valid and whose body arrives. Only `Verifier.begin` makes one.
class Verification {
  #found;
  #set;
  #state;
  #records;

  constructor(found, set, state, records) {
    this.#found = found;
    this.#set = set;
    this.#state = state;
    this.#records = records;
  }

  get claimedId() {
    return value(this.#found, this.#set);
  }

  update(chunk) {
    const bytes = toBytes(chunk);
    let top = memory.length;
    try {
      top = feed(bytes, this.#restore());
      this.#state.set(memory.subarray(stateAt, stateAt + emptyState.length));
    } finally {
      clean(top);
    }
    return this;
  }

  finish() {
    let index;
    let top = inputAt;
    try {
      top = this.#restore();
      index = wasm.finish();
      if (index < 0) throw new VerifyError(index, wasm.detail());
    } finally {
      clean(top);
      this.dispose();
    }
    return verified(this.#found, this.#set + index, undefined);
  }

  dispose() {
    this.#state?.fill(0);
    this.#state = undefined;
  }

  // Writes state and headers where they were. Returns the end of the headers.
  #restore() {
    if (!this.#state) throw new Error('the verification is finished; begin another one');
    const end = inputAt + this.#records.length;
    reserve(end);
    memory.set(this.#state, stateAt);
    memory.set(this.#records, inputAt);
    return end;
  }
}

if (Symbol.dispose) {
  for (const { prototype } of [Verifier, Verification]) {
    Object.defineProperty(prototype, Symbol.dispose, { value: prototype.dispose });
  }
}

function instantiate() {
  wasm = new WebAssembly.Instance(compiled, {}).exports;
  memory = new Uint8Array(wasm.memory.buffer);
  stack = wasm.__stack_high.value;
  inputAt = wasm.__heap_base.value;
  stateAt = wasm.state_at();
  emptyState = keepState();
}

function keepState() {
  return memory.slice(stateAt, stateAt + wasm.state_len());
}

// Overwrites stack, state, and the input up to `top`. After a trap, the stack pointer is elsewhere.
function clean(top) {
  wasm.__stack_pointer.value = stack;
  memory.fill(0, 0, stack);
  memory.set(emptyState, stateAt);
  memory.fill(0, inputAt, top);
}

// Makes the memory large enough for input up to `end` and a piece of a body.
function reserve(end) {
  if (end - inputAt > MAX_RECORDS) throw new RangeError('the signature headers, or the secrets, are longer than 1 MiB');
  const missing = end + MIN_PIECE - memory.length;
  if (missing > 0) {
    wasm.memory.grow(Math.ceil(missing / PAGE));
    memory = new Uint8Array(wasm.memory.buffer);
  }
}

// Writes a body that fits. Returns its length in bytes.
function write(bytes, at) {
  if (typeof bytes === 'string') return encoder.encodeInto(bytes, memory.subarray(at)).written;
  memory.set(bytes, at);
  return bytes.length;
}

// Passes a body in pieces that fit behind `at`. Returns the end of the memory that they took.
function feed(bytes, at) {
  const place = memory.subarray(at);
  let longest = 0;
  for (let from = 0; from < bytes.length;) {
    let len;
    if (typeof bytes === 'string') {
      const { read, written } = encoder.encodeInto(from ? bytes.slice(from) : bytes, place);
      from += read;
      len = written;
    } else {
      const piece = bytes.subarray(from, from + place.length);
      place.set(piece);
      len = piece.length;
      from += len;
    }
    wasm.update(at, len);
    longest = Math.max(longest, len);
  }
  return at + longest;
}

function size(values) {
  return values.reduce((sum, text) => sum + 5 + text.length, 0);
}

// Writes records as `records.rs` reads them. Returns their end.
function writeRecords(kinds, values) {
  let at = inputAt;
  for (let index = 0; index < values.length; index += 1) {
    const text = values[index];
    const len = text.length;
    memory[at] = kinds[index];
    memory[at + 1] = len;
    memory[at + 2] = len >> 8;
    memory[at + 3] = len >> 16;
    memory[at + 4] = len >> 24;
    at += 5;
    // A byte that is not ASCII is valid nowhere, so all of them may be the same.
    for (let i = 0; i < len; i += 1) {
      const char = text.charCodeAt(i);
      memory[at + i] = char < 128 ? char : 255;
    }
    at += len;
  }
  return at;
}

// Finds the signature headers in a `Headers`, an iterable of pairs, Node's flat `rawHeaders`, or an object.
function find(headers) {
  const found = { kinds: [], values: [] };
  if (headers === null || typeof headers !== 'object') throw new TypeError('the headers are not an object');
  if (Array.isArray(headers) && typeof headers[0] === 'string') {
    for (let index = 0; index + 1 < headers.length; index += 2) add(found, headers[index], headers[index + 1]);
  } else if (typeof headers[Symbol.iterator] === 'function') {
    for (const [name, value] of headers) add(found, name, value);
  } else {
    for (const name of Object.keys(headers)) {
      if (name.length in LENGTHS) add(found, name, headers[name]);
    }
  }
  return found;
}

const LENGTHS = { 7: true, 10: true, 14: true, 17: true };

function add(found, name, value) {
  if (value === undefined || value === null) return;
  let kind = HEADERS.indexOf(name);
  if (kind < 0) {
    kind = HEADERS.indexOf(String(name).toLowerCase());
    if (kind < 0) return;
  }
  for (const one of Array.isArray(value) ? value : [value]) {
    if (typeof one !== 'string') throw new TypeError(`the value of ${HEADERS[kind]} is not a string`);
    found.kinds.push(kind);
    found.values.push(one);
  }
}

// The id (0) or timestamp (1) of the set that counts: `webhook-` (0) or `svix-` (8).
function value(found, set, header = 0) {
  return found.values[found.kinds.indexOf(header + (set >= 8 ? 3 : 0))];
}

function verified(found, index, body) {
  return {
    id: value(found, index),
    timestamp: Number(value(found, index, 1)),
    secretIndex: index & 7,
    body,
  };
}

// Returns a body as a string or a plain `Uint8Array`. A small one stays what it is.
function toBytes(body) {
  if (typeof body === 'string' || (body instanceof Uint8Array && body.length < MIN_PIECE)) return body;
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  const tag = Object.prototype.toString.call(body);
  if (tag === '[object ArrayBuffer]' || tag === '[object SharedArrayBuffer]') return new Uint8Array(body);
  throw new TypeError('the body is neither bytes nor a string; pass it as it came, before any parser');
}

function seconds(value, what) {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new TypeError(`${what} is not a whole number of seconds`);
  }
}

function unixNow() {
  return Math.max(0, Math.floor(Date.now() / 1000));
}
