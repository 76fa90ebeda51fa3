// A newcomer's walk, in the words of README: clone, make run, open the page, start the demo, look up,
// move, restart. What the terminal is for is done by commands, what the browser is for by clicks.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './browser.js';
import { tile } from './pages.js';
import { start, startDemo, stop } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** What README tells people to type, to press and to look for. */
const WORDS = ['make run', './target/release/kvatlas demo', 'Nobody is registered yet', '**Lookup**', '**Choose a file**', '**Look up**', '**Move…**', '**Continue**', '**Copy**', '**Sync**', 'Ctrl-C'];

/** Says so if README and this walk have parted. */
export async function readme_says_so(t) {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  for (const word of WORDS) assert.ok(readme.includes(word), `README does not say ${word}`);
  for (const [, picture] of readme.matchAll(/(?:src|srcset)="([^"]+)"/g)) assert.ok(existsSync(join(ROOT, picture)), `README shows ${picture}, which is not there`);
  t.directory = await mkdtemp(join(tmpdir(), 'kvatlas-walk-'));
}

/** A clone has what `make run` needs, and it starts the binary that these tests have built. */
export async function clone_and_make_run(t) {
  const clone = join(t.directory, 'clone');
  // Make's variables of the run above are not a newcomer's.
  const { MAKEFLAGS, MAKELEVEL, MFLAGS, ...environment } = process.env;
  const told = (program, ...args) => execFileSync(program, args, { cwd: existsSync(clone) ? clone : ROOT, env: environment, encoding: 'utf8' });
  told('git', '-c', 'safe.directory=*', 'clone', '--quiet', '--depth', '1', `file://${ROOT}`, clone);
  const [build, run] = told('make', '-n', 'run', 'ARGS=--port 9001').trim().split('\n');
  assert.match(build, /^cargo build --release/);
  assert.equal(run, './target/release/kvatlas --port 9001');
  assert.match(told('cargo', 'metadata', '--no-deps', '--offline', '--locked', '--format-version', '1'), /"name":"kvatlas"/);
  const ports = (all) => ['--host', '127.0.0.1', '--port', all.http, '--monitor-ports', JSON.stringify({ pull: all.pull, reply: all.reply, heartbeat: all.heartbeat })];
  t.again = (all) => start([...ports(all), '--state-dir', join(t.directory, 'state')], /listening http=\S+:(\d+) pull=\S+:(\d+) reply=\S+:(\d+) heartbeat=\S+:(\d+)/);
  t.controller = await t.again({ http: '0', pull: 0, reply: 0, heartbeat: 0 });
  const [http, pull, reply, heartbeat] = t.controller.match.slice(1).map(Number);
  t.ports = { http: String(http), pull, reply, heartbeat };
}

export async function open_the_page(t) {
  await t.page.goto(`http://127.0.0.1:${t.ports.http}/`);
  await t.page.getByText('Nobody is registered yet').waitFor();
}

/** Looks up the prompt that the demo names, on the page that the demo names. */
export async function start_the_demo_and_look_up(t) {
  t.demo = await startDemo();
  const { page } = t;
  await page.goto(`${t.demo.url}/`);
  await eventually(page, `${tile('Workers')} === '8' && ${tile('Keys')} !== '0'`);
  await page.locator('#nav a', { hasText: 'Lookup' }).click();
  const chooser = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: 'Choose a file' }).click();
  await (await chooser).setFiles(t.demo.prompt);
  await page.getByText('1,024 tokens').waitFor();
  await page.getByRole('button', { name: 'Look up' }).click();
  await page.getByText('1,024 of 1,024 tokens').first().waitFor();
  assert.equal(await page.evaluate(tile('Longest prefix')), '100 %');
}

export async function move(t) {
  const { page } = t;
  await page.getByRole('button', { name: 'Move… demo-1' }).click();
  await page.getByRole('button', { name: 'Continue' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('Copy 1,024 tokens from LocalCPUBackend of demo-1 to LocalCPUBackend of demo-2.').waitFor();
  await dialog.getByRole('button', { name: 'Copy' }).click();
  const card = page.locator('.card', { hasText: 'move demo-1 → demo-2' });
  await card.locator('.top .badge.good', { hasText: 'finished' }).waitFor();
  await card.locator('li', { hasText: 'demo-1:1' }).getByText('1,024 tokens').waitFor();
  await stop(t.demo, 'SIGINT');
  assert.equal(t.demo.child.exitCode, 0);
}

/** The engine that the empty page proposes; then the controller goes, and comes back knowing it. */
export async function restart(t) {
  const { page } = t;
  t.expect(/ERR_|Failed to load|net::/);
  await page.goto(`http://127.0.0.1:${t.ports.http}/`);
  const [program, ...args] = (await page.locator('pre', { hasText: 'kvatlas worker' }).innerText()).trim().split(/\s+/);
  assert.equal(program, 'kvatlas');
  await start(args, /registered worker=/);
  await eventually(page, `${tile('Workers')} === '2' && ${tile('Keys')} !== '0'`);
  await stop(t.controller, 'SIGINT');
  assert.equal(t.controller.child.exitCode, 0);
  await page.locator('#link.off').waitFor();
  t.controller = await t.again(t.ports);
  // Nobody reloads the page.
  await page.locator('#link.on').waitFor();
  await eventually(page, `${tile('Workers')} === '2' && ${tile('Keys')} !== '0'`);
  await page.locator('#nav a', { hasText: 'Sync' }).click();
  const disk = page.locator('.card', { hasText: 'State on disk' });
  await disk.getByText('kept', { exact: true }).waitFor();
  await disk.getByText(/^2 workers, [1-9][\d,]* keys/).waitFor();
  await t.look('sync-kept');
  await stop(t.controller);
  await rm(t.directory, { recursive: true });
}
