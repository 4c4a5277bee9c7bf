// The package as users get it: packed, installed elsewhere, its README's examples run, its types checked.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { SECRET, signed, sourceOf } from './support.mjs';

const KB = 1000;
const root = fileURLToPath(new URL('..', import.meta.url));
let folder;
let packed;

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'package-'));
  const [report] = JSON.parse(
    execFileSync('npm', ['pack', './npm', '--json', '--pack-destination', folder], { cwd: root }));
  packed = report;
  writeFileSync(join(folder, 'package.json'), '{"private":true}');
  const args = ['install', '--offline', '--no-audit', '--no-fund', join(folder, report.filename)];
  execFileSync('npm', args, { cwd: folder });
});

after(() => rmSync(folder, { recursive: true, force: true }));

// Writes the Nth JavaScript block of the README as a module of the project that has the package installed.
function example(nth, name) {
  const blocks = [...sourceOf('../npm/README.md').matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code);
  const file = join(folder, name);
  writeFileSync(file, blocks[nth]);
  return pathToFileURL(file).href;
}

const now = () => Math.floor(Date.now() / 1000);
const BODY = '{"eventType":"v1.export-job.created"}';

test('the package is small and complete', () => {
  const files = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(files, [
    'LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'edge-light.mjs', 'index.d.cts', 'index.d.mts', 'node.cjs',
    'node.mjs', 'package.json', 'verifier.cjs', 'verifier.mjs', 'verify.wasm', 'web.mjs', 'workerd.mjs',
  ]);
  const wasm = statSync(join(root, 'npm/verify.wasm')).size;
  console.log(`verify.wasm ${wasm} bytes, tarball ${packed.size}, unpacked ${packed.unpackedSize}`);
  assert.ok(wasm <= 25 * KB);
  assert.ok(packed.size <= 25 * KB);
  const manifest = JSON.parse(sourceOf('../npm/package.json'));
  assert.equal(manifest.dependencies, undefined);
  assert.equal(manifest.scripts, undefined);
  const crate = sourceOf('../../Cargo.toml').match(/^version = "(.*)"$/m)[1];
  assert.equal(manifest.version, crate);
});

test('the example for Node works', async () => {
  process.env.PLEO_WEBHOOK_SECRET = SECRET;
  const file = example(0, 'node.mjs').replace('file://', '');
  const source = readFileSync(file, 'utf8').replace('server.listen(8787)', 'export default server');
  writeFileSync(file, source);
  const { default: server } = await import(pathToFileURL(file).href);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const send = async (headers, body) => {
    const sent = request({ port, method: 'POST', headers }).end(body);
    const [response] = await once(sent, 'response');
    response.resume();
    return response.statusCode;
  };
  const headers = signed(BODY, { now: now() });
  const aborted = request({ port, method: 'POST', headers: { ...headers, 'content-length': 1000 } });
  aborted.on('error', () => {});
  const closed = once(server, 'request').then(([incoming]) => once(incoming, 'close').catch(() => {}));
  aborted.write('{', () => aborted.destroy());
  await closed;
  assert.equal(await send(headers, BODY), 204);
  assert.equal(await send(headers, `${BODY} `), 401);
  const id = headers['webhook-id'];
  assert.equal(await send({ ...headers, 'webhook-id': [id, id] }, BODY), 401);
  server.close();
  server.closeAllConnections();
});

test('the example for fetch handlers works', async () => {
  const { default: worker } = await import(example(1, 'worker.mjs'));
  const post = (headers, body) =>
    worker.fetch(new Request('https://example.com/', { method: 'POST', headers, body }), { PLEO_WEBHOOK_SECRET: SECRET });
  const headers = signed(BODY, { now: now() });
  assert.equal((await post(headers, BODY)).status, 204);
  const rejected = await post(headers, '{}');
  assert.deepEqual([rejected.status, await rejected.text()], [401, 'signature_mismatch']);
});

test('the examples for streaming and rotation work', async () => {
  process.env.PLEO_WEBHOOK_SECRET = process.env.OLD_SECRET = process.env.NEW_SECRET = SECRET;
  const { receive } = await import(example(2, 'stream.mjs'));
  const post = (headers, body) => receive(new Request('https://example.com/', { method: 'POST', headers, body }));
  const headers = signed(BODY, { now: now(), id: 'msg_stream' });
  assert.equal(await post(headers, BODY), 'msg_stream');
  await assert.rejects(post(headers, '{}'), { code: 'signature_mismatch' });
  assert.equal(await post(signed('', { now: now(), id: 'msg_empty' })), 'msg_empty');
  await import(example(3, 'rotate.mjs'));
});

test('the README names the versions that the benchmark uses', () => {
  const { devDependencies } = JSON.parse(sourceOf('../package.json'));
  for (const peer of ['standardwebhooks', 'svix']) {
    assert.ok(sourceOf('../npm/README.md').includes(`${peer} ${devDependencies[peer]}`), peer);
  }
});

test('the types hold for import and require', () => {
  const use = `
    const verifier = new Verifier(['whsec_a', 'whsec_b'], { tolerance: 60 });
    const headers: import('node:http').IncomingHttpHeaders = {};
    const bytes: Uint8Array = verifier.verify(headers, new Uint8Array()).body;
    const text: string = verifier.verify(new Headers(), 'text', 1).body;
    verifier.verify(['accept', '*/*'], new ArrayBuffer(1));
    verifier.verify({} as NodeJS.Dict<string[]>, bytes);
    const { id, timestamp, secretIndex } = verifier.begin([['a', 'b']]).update(bytes).finish();
    const all: [string, number, number] = [id, timestamp, secretIndex];
    try { verifier.dispose(); } catch (error) {
      if (error instanceof VerifyError && error.code === 'timestamp_too_old') error.skew?.toFixed();
      if (error instanceof SecretError && error.code === 'quotes') error.index.toFixed();
    }
    // @ts-expect-error a parsed body
    verifier.verify(headers, { a: 1 });
    // @ts-expect-error no code of this package
    (error: VerifyError) => error.code === 'other';
    void [text, all];`;
  writeFileSync(join(folder, 'use.mts'),
    `import { SecretError, Verifier, VerifyError } from 'pleo-webhook-verify';${use}`);
  writeFileSync(join(folder, 'use.cts'),
    `import verify = require('pleo-webhook-verify');const { SecretError, Verifier, VerifyError } = verify;
     type VerifyError = verify.VerifyError;${use}`);
  const types = join(root, 'node_modules/@types');
  const args = ['--noEmit', '--strict', '--module', 'node16', '--moduleResolution', 'node16', '--target', 'es2022',
    '--lib', 'es2022,dom,dom.iterable', '--typeRoots', types, '--types', 'node'];
  execFileSync(join(root, 'node_modules/.bin/tsc'), [...args, 'use.mts', 'use.cts'], { cwd: folder, stdio: 'inherit' });
});
