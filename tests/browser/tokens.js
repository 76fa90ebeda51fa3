// Tokens in the browser: none, a wrong one, one that only reads, one that may command.
import assert from 'node:assert/strict';
import { controller, engine } from './processes.js';

const dialog = (page) => page.getByRole('dialog', { name: 'Token' });

async function give(page, token) {
  await dialog(page).getByLabel('Token').fill(token);
  await dialog(page).getByRole('button', { name: 'Use it' }).click();
}

const health = (page) => page.getByRole('button', { name: 'Continue' }).click();

/** Both roles have a token. */
export async function both_roles(t) {
  const { page } = t;
  t.expect(/status of 40[13]/);
  const ours = await controller('--read-token', 'the-read-token', '--admin-token', 'the-admin-token');
  await engine(ours, 'guarded');
  await page.goto(`${ours.url}/`);
  await dialog(page).getByText('The controller asks for a token.').waitFor();
  await t.look('token');
  await dialog(page).getByRole('button', { name: 'Not now' }).click();
  await page.locator('#link', { hasText: 'no token' }).waitFor();
  await page.getByRole('alert').getByText('asks for a token').waitFor();
  await page.getByRole('button', { name: 'Token', exact: true }).click();
  await give(page, 'no such token');
  await dialog(page).getByText('The controller does not know this token.').waitFor();
  await give(page, 'ключ');
  await dialog(page).getByText('This is no token.').waitFor();
  await give(page, 'the-read-token');
  await page.locator('#link.on').waitFor();
  await page.getByText('instances').first().waitFor();
  // Reading is enough for everything but commands.
  await page.locator('#nav a', { hasText: 'Actions' }).click();
  await health(page);
  await dialog(page).getByText('This needs the admin token.').waitFor();
  await dialog(page).getByRole('button', { name: 'Not now' }).click();
  await page.getByRole('alert').getByText('this needs the admin token').waitFor();
  await health(page);
  await dialog(page).getByText('This needs the admin token.').waitFor();
  // The next dialog says the same: it comes with the next refusal.
  const refused = page.waitForResponse((answer) => answer.status() === 403);
  await give(page, 'the-read-token');
  await refused;
  await dialog(page).getByText('This needs the admin token.').waitFor();
  await give(page, 'the-admin-token');
  await page.locator('.card', { hasText: 'health guarded' }).locator('.top .badge.good').waitFor();
  // Kept for this tab, so that a reload asks nothing; another tab is asked.
  await page.reload();
  await page.locator('#link.on').waitFor();
  await page.getByRole('row', { name: 'health' }).waitFor();
  assert.equal(await dialog(page).count(), 0);
}

/** Only commands have a token: everybody reads without being asked. */
export async function admin_only(t) {
  const { page } = t;
  t.expect(/status of 401/);
  const ours = await controller('--admin-token', 'the-admin-token');
  await engine(ours, 'half-guarded');
  await page.goto(`${ours.url}/#actions`);
  await page.locator('#link.on').waitFor();
  assert.equal(await dialog(page).count(), 0);
  await page.getByRole('combobox', { name: 'Instance' }).waitFor();
  await health(page);
  await dialog(page).getByText('The controller asks for a token.').waitFor();
  await give(page, 'the-admin-token');
  await page.locator('.card', { hasText: 'health half-guarded' }).locator('.top .badge.good').waitFor();
}
