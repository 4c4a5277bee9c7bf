// The conformance vectors and captured deliveries, under each module system.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';

import * as imported from 'pleo-webhook-verify';
import { check } from './check.mjs';
import { sourceOf, vectors } from './support.mjs';

const required = createRequire(import.meta.url)('pleo-webhook-verify');

function assertPasses(api) {
  const { checks, failures } = check(api, vectors);
  assert.deepEqual(failures, []);
  assert.ok(checks > 2000, `only ${checks} checks`);
}

test('vectors have expected outcome by import', () => assertPasses(imported));

test('vectors have expected outcome by require', () => assertPasses(required));

test('vectors have expected outcome in the module of edge runtimes', async () => {
  const core = await import('../npm/verifier.mjs');
  core.load(new WebAssembly.Module(readFileSync(new URL('../npm/verify.wasm', import.meta.url))));
  assertPasses(core);
});

test('import and require return the same classes', () => {
  assert.equal(imported.VerifyError, required.VerifyError);
  assert.equal(imported.Verifier, required.Verifier);
});

test('a wrong expectation fails', () => {
  const [first] = vectors.verify.cases;
  const { failures } = check(imported, { ...vectors, verify: { cases: [{ ...first, expect: 'invalid_id' }] } });
  assert.ok(failures.length > 10);
});

test('codes are those of the Rust crate', () => {
  const source = sourceOf('../../crates/pleo-webhook-verify/src/error.rs');
  // The module is built without optional features.
  const rust = source.replace(/#\[cfg\(feature.*\n.*\n/g, '');
  const codes = [...rust.matchAll(/=> "([a-z_]+)",/g)].map(([, code]) => code).filter((code) => code.includes('_'));
  const types = sourceOf('../npm/index.d.cts');
  const declared = [...types.matchAll(/\| '([a-z_0-9]+)'/g)].map(([, code]) => code);
  assert.equal(codes.length, 8);
  for (const code of codes) {
    assert.ok(sourceOf('../npm/verifier.mjs').includes(`['${code}',`), code);
    assert.ok(declared.includes(code), code);
  }
});
