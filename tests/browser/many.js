// A fleet of 2,000 workers, registered over the wire: the page stays quick.
import assert from 'node:assert/strict';
import { eventually } from './browser.js';
import { tile } from './pages.js';
import { controller, scripted } from './processes.js';

const [INSTANCES, RANKS] = [250, 8];
/** Bytes of an answer that holds one page of the table, at most: no screen of it is drawn from all workers. */
const PAGE_BYTES = 128 * 1024;

export async function many(t) {
  const { page } = t;
  const ours = await controller();
  await scripted('register.py', ours.pull, ours.reply, INSTANCES, RANKS);
  await page.goto(`${ours.url}/#fleet`);
  const rows = (some) => eventually(page, (wanted) => document.querySelectorAll('main tbody tr').length === wanted, some);
  await page.getByText('1 to 50 of 2,000').waitFor();
  await rows(50);
  const took = {};
  // However many there are, the page is sent and draws one page of them.
  const lengths = [];
  page.on('response', async (response) => {
    if (!/\/fleet\?(?!limit)/.test(response.url())) return;
    const body = await response.text().catch(() => null);
    if (body) lengths.push([body.length, JSON.parse(body).workers.length]);
  });
  const timed = async (name, work) => {
    const begin = Date.now();
    await work();
    took[name] = Date.now() - begin;
  };
  await timed('filter', async () => {
    await page.getByRole('searchbox').fill('engine-0042');
    await page.getByText(`1 to ${RANKS} of ${RANKS} (2,000 in all)`).waitFor();
  });
  assert.match(await page.locator('main tbody').innerText(), /engine-0042\s*:7/);
  await page.getByRole('searchbox').fill('');
  await page.getByText('1 to 50 of 2,000').waitFor();
  const keys = page.locator('th button', { hasText: 'Keys' });
  await timed('sort', async () => {
    await keys.click();
    await page.locator('th[aria-sort=descending]', { hasText: 'Keys' }).waitFor();
  });
  // Every fiftieth instance has the most: five of them, of eight ranks each.
  await eventually(page, () => [...document.querySelectorAll('main tbody tr')].slice(0, 40).every((row) => row.cells[3].textContent === '50' && /engine-\d*[49]9/.test(row.cells[0].textContent)));
  await page.getByLabel('Rows').selectOption('200');
  await rows(200);
  for (let shown = 201; shown < 2000; shown += 200) {
    await timed(`page from ${shown}`, async () => {
      await page.getByRole('button', { name: 'Next' }).click();
      await page.getByText(`${shown.toLocaleString('en-US')} to ${(shown + 199).toLocaleString('en-US')} of 2,000`).waitFor();
    });
  }
  assert.ok(await page.getByRole('button', { name: 'Next' }).isDisabled());
  assert.equal(await page.locator('main tbody tr').last().locator('td').nth(3).innerText(), '1');
  await timed('instances', async () => {
    await page.getByRole('button', { name: 'Instances' }).click();
    await page.getByText(`1 to 200 of ${INSTANCES}`).waitFor();
  });
  await timed('overview', async () => {
    await page.locator('#nav a', { hasText: 'Overview' }).click();
    await eventually(page, `${tile('Workers')} === '2,000'`);
  });
  await timed('sync', async () => {
    await page.locator('#nav a', { hasText: 'Sync' }).click();
    await rows(200);
  });
  await timed('command form', async () => {
    await page.locator('#nav a', { hasText: 'Actions' }).click();
    await page.getByRole('combobox', { name: 'Instance' }).selectOption('engine-0249');
  });
  for (const [length, rows] of lengths) assert.ok(rows <= 200 && length < PAGE_BYTES, `${rows} rows in ${length} bytes`);
  assert.ok(lengths.length > 10);
  process.stdout.write(`slowest ${Math.max(...Object.values(took))} ms, `);
}
