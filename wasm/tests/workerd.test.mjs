// The vectors in workerd, the runtime of Cloudflare Workers: a worker imports the entry of the package that
// wrangler chooses, and answers with what it found.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { FILES, signed } from './support.mjs';

const require = createRequire(import.meta.url);
const WORKER = `
  import * as api from 'workerd.mjs';
  import { check } from 'check.mjs';
${FILES.map((name) => `  import ${name} from '${name}.json';`).join('\n')}

  const verifier = new api.Verifier('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', { tolerance: 10 ** 9 });

  export default {
    async fetch(request) {
      if (request.method === 'GET') return Response.json(check(api, { ${FILES.join(', ')} }));
      const verification = verifier.begin(request.headers);
      for await (const chunk of request.body) verification.update(chunk);
      return Response.json(verification.finish().id);
    },
  };`;
const MODULES = {
  'worker.mjs': 'esModule', 'workerd.mjs': 'esModule', 'verifier.mjs': 'esModule', 'check.mjs': 'esModule',
  'verify.wasm': 'wasm', ...Object.fromEntries(FILES.map((name) => [`${name}.json`, 'json'])),
};

function config(port) {
  const modules = Object.entries(MODULES).map(([name, kind]) => `(name = "${name}", ${kind} = embed "${name}")`);
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (modules = [${modules.join(', ')}], compatibilityDate = "2026-01-01"))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")],
);`;
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

test('vectors have expected outcome in workerd', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'workerd-'));
  const copy = (path) => {
    const from = fileURLToPath(new URL(path, import.meta.url));
    cpSync(from, join(folder, path.split('/').at(-1)));
  };
  ['../npm/workerd.mjs', '../npm/verifier.mjs', '../npm/verify.wasm', './check.mjs'].forEach(copy);
  FILES.forEach((name) => copy(`../../vectors/${name}.json`));
  writeFileSync(join(folder, 'worker.mjs'), WORKER);
  const port = await freePort();
  writeFileSync(join(folder, 'config.capnp'), config(port));

  const binary = require.resolve(`@cloudflare/workerd-${process.platform}-${process.arch === 'x64' ? '64' : process.arch}/bin/workerd`, {
    paths: [dirname(require.resolve('workerd/package.json'))],
  });
  // Descriptor 3 gets a line once the socket listens.
  const workerd = spawn(binary, ['serve', '--control-fd=3', join(folder, 'config.capnp')], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  });
  t.after(async () => {
    if (workerd.exitCode === null) {
      workerd.kill();
      await once(workerd, 'exit');
    }
    rmSync(folder, { recursive: true });
  });
  const ended = once(workerd, 'exit').then(([code]) => assert.fail(`workerd ended with ${code}`));
  await Promise.race([once(workerd.stdio[3], 'data'), ended]);

  const url = `http://127.0.0.1:${port}/`;
  const { checks, failures } = await (await fetch(url)).json();
  assert.deepEqual(failures, []);
  assert.ok(checks > 2000, `only ${checks} checks`);

  const body = Buffer.alloc(300_000, 'w');
  const headers = signed(body, { id: 'msg_streamed' });
  const answer = await fetch(url, { method: 'POST', headers, body });
  assert.equal(await answer.json(), 'msg_streamed');
});
