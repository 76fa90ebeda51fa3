// Upstream's own dashboard, unchanged, served from another origin and pointed at our controller.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { execFileSync } from 'node:child_process';
import { join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './browser.js';
import { controller, engine } from './processes.js';

const VENV = fileURLToPath(new URL('../../.cache/interop-venv', import.meta.url));
const TYPES = { html: 'text/html', css: 'text/css', js: 'text/javascript', png: 'image/png' };

/** Upstream's files at the paths its own server gives them. */
async function serve() {
  const packages = execFileSync(join(VENV, 'bin/python'), ['-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'], { encoding: 'utf8' }).trim();
  const files = join(packages, 'lmcache/v1/cache_controller/frontend/static');
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const path = pathname === '/' ? 'index.html' : normalize(pathname).replace(/^\/static\//, '');
    try {
      const body = await readFile(join(files, path));
      response.writeHead(200, { 'content-type': TYPES[path.split('.').at(-1)] ?? 'text/plain' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, origin: `http://127.0.0.1:${server.address().port}` };
}

export async function upstream(t) {
  const { page } = t;
  const { server, origin } = await serve();
  try {
    const ours = await controller('--cors-origins', origin);
    await engine(ours, 'seen-by-upstream');
    // Its styles come from a network of others, which tests do not reach; nothing else may fail.
    t.expect(/cdn\.jsdelivr\.net/);
    const alerts = [];
    page.on('dialog', (dialog) => { alerts.push(dialog.message()); dialog.dismiss(); });
    const told = async () => (await (await fetch(`${ours.url}/controller/workers`)).json()).total_count === 2;
    for (const deadline = Date.now() + 20_000; !await told();) assert.ok(Date.now() < deadline, 'the engine never registered');
    await page.goto(`${origin}/?host=127.0.0.1&port=${ours.url.split(':').at(-1)}`);
    await page.locator('#connectionStatus', { hasText: /^Connected$/ }).waitFor();
    await eventually(page, () => document.querySelectorAll('#workersTableBody tr').length === 2 && document.querySelectorAll('#instancesTableBody tr').length === 1);
    assert.match(await page.locator('#instancesTableBody').textContent(), /seen-by-upstream/);
    assert.match(await page.locator('#workersTableBody').textContent(), /seen-by-upstream/);
    await eventually(page, () => /Workers\s*2/.test(document.getElementById('quickStats').textContent));
    for (const tab of ['metrics', 'threads']) await page.evaluate((name) => globalThis.loadTabData(name), tab);
    await eventually(page, () => /lmcache|kvatlas/.test(document.getElementById('metricsContent').textContent));
    assert.deepEqual(alerts, []);
  } finally {
    server.close();
  }
}
