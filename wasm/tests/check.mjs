// Checks the verifier against the conformance vectors: `files` has those of `vectors/` by name. Runs in Node,
// in a browser and in an edge runtime.

const SIZES = [1, 7, 63, 64, 65, 1000, 4096];
const NAMES = {
  webhook: ['webhook-id', 'webhook-timestamp', 'webhook-signature'],
  svix: ['Svix-Id', 'Svix-Timestamp', 'Svix-Signature'],
};

// Returns the number of checks, and a line for each that failed.
export function check({ SecretError, Verifier, VerifyError }, { verify: vectors, headers, secrets, captured }) {
  const failures = [];
  let checks = 0;
  const expect = (what, expected, run) => {
    checks += 1;
    let actual;
    try {
      actual = run();
    } catch (error) {
      actual = error instanceof VerifyError || error instanceof SecretError ? error.code : String(error);
    }
    if (actual !== expected) failures.push(`${what}: ${actual}, expected ${expected}`);
  };

  for (const { name, expect: expected, secrets, now, tolerance, ...fields } of vectors.cases) {
    const verifier = new Verifier(secrets, { tolerance });
    const values = [fields.id_b64, fields.timestamp_b64, fields.signature_b64].map((text) => text && atob(text));
    // `text &&` keeps null, and an empty value empty.
    const body = Uint8Array.from(atob(fields.body_b64), (char) => char.charCodeAt(0));
    for (const [prefix, names] of Object.entries(NAMES)) {
      const pairs = names.map((header, index) => [header, values[index]]);
      const accepted = ({ id, timestamp }) =>
        id === values[0] && String(timestamp) === values[1] ? 'ok' : `ok for ${id} at ${timestamp}`;
      const inputs = {
        pairs,
        object: Object.fromEntries(pairs),
        'raw headers': ['accept', '*/*', ...pairs.filter(([, value]) => value !== null).flat()],
      };
      for (const [how, headers] of Object.entries(inputs)) {
        expect(`${name}, ${prefix}, ${how}`, expected, () => accepted(verifier.verify(headers, body, now)));
      }
      for (const size of SIZES) {
        expect(`${name}, ${prefix}, chunks of ${size}`, expected, () => {
          const verification = verifier.begin(pairs, now);
          for (let at = 0; at < body.length; at += size) verification.update(body.subarray(at, at + size));
          return accepted(verification.finish());
        });
      }
      expect(`${name}, ${prefix}, buffer`, expected, () => accepted(verifier.verify(pairs, body.buffer, now)));
      const text = new TextDecoder().decode(body);
      if (new TextEncoder().encode(text).length === body.length && !text.includes('\ufffd')) {
        expect(`${name}, ${prefix}, text`, expected, () => accepted(verifier.verify(pairs, text, now)));
      }
      const headers = asHeaders(pairs);
      if (headers) {
        expect(`${name}, ${prefix}, Headers`, expected, () => accepted(verifier.verify(headers, body, now)));
      }
    }
  }

  const verifier = new Verifier(headers.secret);
  for (const { name, expect: expected, headers: pairs } of headers.cases) {
    for (const [how, input] of [['pairs', pairs], ['raw headers', pairs.flat()]]) {
      expect(`${name}, ${how}`, expected, () => verifier.verify(input, headers.body, headers.now) && 'ok');
    }
  }
  for (const { name, expect: expected, secret } of secrets.cases) {
    expect(name, expected, () => new Verifier(secret) && 'ok');
  }

  for (const { secrets_that_signed: signers, headers: pairs, body } of captured.deliveries) {
    const sent = Number(pairs.find(([name]) => name === 'webhook-timestamp')[1]);
    for (const secret of signers) {
      const verifier = new Verifier(secret);
      expect('captured delivery', 'ok', () => verifier.verify(pairs, body, sent).timestamp === sent && 'ok');
      expect('captured delivery, tampered', 'signature_mismatch', () =>
        verifier.verify(pairs, body.replace('companyId', 'companyID'), sent));
    }
  }
  return { checks, failures };
}

// Returns pairs as `Headers`; `undefined` if it refuses a value or changes it.
function asHeaders(pairs) {
  try {
    const headers = new Headers(pairs.filter(([, value]) => value !== null));
    return pairs.every(([name, value]) => headers.get(name) === value) ? headers : undefined;
  } catch {
    return undefined;
  }
}
