// The vectors in Chromium: a page imports the package as it is served, and posts what it found.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { text } from 'node:stream/consumers';

import { FILES } from './support.mjs';

const PAGE = `<!doctype html><script type="module">
  try {
    const api = await import('/npm/web.mjs');
    const { check } = await import('/tests/check.mjs');
    const vectors = {};
    for (const name of ${JSON.stringify(FILES)}) vectors[name] = await (await fetch('/vectors/' + name + '.json')).json();
    const result = check(api, vectors);
    await fetch('/result', { method: 'POST', body: JSON.stringify(result) });
  } catch (error) {
    await fetch('/result', { method: 'POST', body: JSON.stringify({ failures: [String(error)] }) });
  }
</script>`;
const TYPES = { mjs: 'text/javascript', json: 'application/json', wasm: 'application/wasm' };

function skip(reason) {
  if (process.env.CI === 'true' || process.env.PLEO_TEST_FORBID_SKIP) throw new Error(reason);
  console.error(`SKIPPED: ${reason}`);
}

test('vectors have expected outcome in Chromium', { timeout: 120_000 }, async (t) => {
  let report;
  const reported = new Promise((resolve) => {
    report = resolve;
  });
  const server = createServer(async (request, response) => {
    const [, folder, file] = request.url.split('/');
    if (request.url === '/') {
      response.setHeader('content-type', 'text/html').end(PAGE);
    } else if (request.url === '/result') {
      report(JSON.parse(await text(request)));
      response.end();
    } else if (['npm', 'tests', 'vectors'].includes(folder) && /^[a-z]+\.(mjs|json|wasm)$/.test(file)) {
      const place = folder === 'vectors' ? '../../' : '../';
      response.setHeader('content-type', TYPES[file.split('.')[1]]);
      response.end(readFileSync(new URL(`${place}${folder}/${file}`, import.meta.url)));
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const profile = mkdtempSync(join(tmpdir(), 'chromium-'));
  const url = `http://127.0.0.1:${server.address().port}/`;
  const args = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', `--user-data-dir=${profile}`];
  const browser = spawn('chromium', [...args, '--remote-debugging-port=0', url], { stdio: 'ignore', detached: true });
  t.after(async () => {
    server.close();
    server.closeAllConnections();
    if (browser.exitCode === null && browser.pid) {
      // The browser and its processes are a group.
      process.kill(-browser.pid, 'SIGKILL');
      await once(browser, 'exit');
    }
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  const failed = once(browser, 'error').then(([error]) => ({ error }));
  const ended = once(browser, 'exit').then(([code]) => ({ failures: [`chromium ended with ${code}`] }));
  const result = await Promise.race([reported, failed, ended]);
  if (result.error) return skip(`chromium does not start: ${result.error.message}`);
  assert.deepEqual(result.failures, []);
  assert.ok(result.checks > 2000, `only ${result.checks} checks`);
});
