// Uses the page as a visitor would: page.mjs ADDRESS FOLDER-FOR-PICTURES NAME-OF-THE-TEST
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Browser } from './chromium.mjs';

const DESKTOP = { width: 1440, height: 1000 };
const PHONE = { width: 390, height: 844, scale: 2, phone: true };

const [address, folder, test] = process.argv.slice(2);
const browser = await Browser.start();
const totals = () => browser.value('playground.world.totals');
const text = (selector) => browser.value(`document.querySelector(${JSON.stringify(selector)}).innerText`);
/// In steps, so that the page draws what happens on the way.
const pass = (milliseconds) => browser.value(`for (let left = ${milliseconds}; left > 0; left -= 100) playground.advance(100)`);

async function nothingIsLost() {
  assert.equal(await text('#lost'), '0');
  assert.equal(await text('#disordered'), '0');
}

async function fitsItsWidth(width) {
  assert.equal(await browser.value('document.documentElement.scrollWidth'), width);
  const cut = await browser.value(`[...document.querySelectorAll('button')].filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText)`);
  assert.deepEqual(cut, []);
}

async function nothingStandsBesideItsPanel() {
  const beside = await browser.value(`(() => {
    const { left, right } = document.querySelector('.broker .panel').getBoundingClientRect();
    return [...document.querySelectorAll('.chip.taken')].filter((one) => {
      const place = one.querySelector('.body').getBoundingClientRect();
      return place.left < left || place.right > right;
    }).map((one) => one.textContent);
  })()`);
  assert.deepEqual(beside, []);
}

/// Colours of texts on what lies behind them, by the formula of WCAG 2: at least 4.5 to 1.
async function isReadable() {
  const faint = await browser.value(`(() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const behind = (one) => {
      for (let at = one; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        if ((numbers(colour)[3] ?? 1) > 0) return numbers(colour);
      }
      return [255, 255, 255];
    };
    return [...document.querySelectorAll('h1, h2, p, li, dt, dd, a, button:enabled, label, legend, b, time, small, output')]
      .filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
      .map((one) => {
        const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
        return [((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)).toFixed(2), one.innerText];
      })
      .filter(([contrast]) => contrast < 4.5);
  })()`);
  assert.deepEqual(faint, []);
}

const tests = {
  async a_visitor_breaks_everything_and_nothing_is_lost() {
    await browser.open(`${address}?seed=7&play=0`, DESKTOP);
    await pass(6_000);
    for (const selector of ['[data-key="0"]', '[data-key="0"]', '[data-key="1"]', '[data-key="2"]']) await browser.click(selector);
    await pass(1_600);
    await browser.click('#kill-0');
    await pass(1_000);
    await browser.click('#freeze-1');
    await browser.picture(join(folder, 'broken.png'));
    assert.equal(await text('#freeze-1'), 'Thaw');
    await browser.click('#expire');
    await pass(9_000);
    await browser.click('#freeze-1');
    await browser.click('#cut');
    await pass(4_000);
    await browser.click('#cut');
    await browser.value('document.getElementById("fate").value = "u"');
    await browser.click('[data-key="3"]');
    await pass(20_000);
    assert.match(await text('#letters'), /D\d+ publish \(unroutable\): no queue is bound/);
    await browser.click('#letters button');
    await browser.click('#customers');
    await pass(60_000);
    await nothingIsLost();
    const { committed, delivered, waiting, dead } = await totals();
    assert.ok(committed > 20);
    assert.deepEqual([delivered, waiting, dead], [committed, 0, 0]);
    assert.equal(await text('#delivered'), String(delivered));
    const met = await browser.value('[...document.querySelectorAll(".rules .met")].map((rule) => rule.id)');
    for (const rule of [1, 2, 3, 4, 5, 6, 7, 8, 10]) assert.ok(met.includes(`rule-${rule}`), `rule ${rule} of ${met}`);
    assert.equal(await text('#met'), String(met.length));
    await fitsItsWidth(DESKTOP.width);
    await isReadable();
    await browser.picture(join(folder, 'healed.png'), { whole: true });
    await nothingStandsBesideItsPanel();
  },

  async an_address_is_a_run() {
    await browser.open(`${address}?seed=11&play=0`, DESKTOP);
    await pass(3_000);
    await browser.click('#kill-1');
    await pass(5_000);
    await browser.click('#cut');
    await pass(1_000);
    const [shared, before] = [await browser.value('location.href'), await totals()];
    assert.match(shared, /\?seed=11&script=3000k1\.8000x0&play=0$/);
    await browser.open(shared, DESKTOP);
    await pass(9_000);
    assert.deepEqual(await totals(), before);
    assert.equal(await text('#acts'), '2 clicks');
    // The other policy is another run of the same clicks, at the same time.
    await browser.click('input[value=block]');
    assert.match(await browser.value('location.search'), /policy=block/);
    assert.equal(await browser.value('playground.world.now'), 9_000);
    await browser.click('#fresh');
    assert.equal(await browser.value('playground.world.script'), '');
    await browser.open(`${address}?script=nonsense`, DESKTOP);
    assert.match(await text('#failure'), /nonsense/);
  },

  async every_show_shows_what_it_says() {
    await browser.open(`${address}?play=0`, DESKTOP);
    const expected = {
      'a relay dies': [/You kill Relay 1\. .*stays in the outbox/, /ran out/, /reaches the broker again/],
      'the broker goes away': [/You cut the broker off/, /An outage is no message's fault/, /The broker answers Relay \d again/],
      'a relay freezes': [/You freeze Relay 1/, /takes over and raises the fence/, /fenced off, nothing changes/],
      'an answer is lost': [/answer to Relay \d is lost on the way/, /repeats its report on .* nothing changes/],
      'a message is poisonous': [/A1 failed: no queue is bound/, /A1 is dead/],
      'a message kills': [/A1 has killed Relay/, /A1 is under suspicion/, /A1 has killed too many relays/],
    };
    const shows = await browser.value('[...document.querySelectorAll("#shows a")].map((show) => show.innerText)');
    assert.deepEqual(shows, Object.keys(expected));
    for (const [place, show] of shows.entries()) {
      await browser.click(`#shows li:nth-child(${place + 1}) a`);
      assert.ok(await browser.value('document.getElementById("caption").checkVisibility()'));
      let told = '';
      for (let second = 0; second < 60; second += 5) {
        await pass(5_000);
        told += await text('#events');
      }
      for (const words of expected[show]) assert.match(told.replaceAll('\n', ' '), words, show);
      await nothingIsLost();
    }
  },

  async a_phone_in_the_dark() {
    await browser.open(`${address}?seed=5&play=0`, { ...PHONE, dark: true });
    await pass(8_000);
    await browser.click('#cut');
    await pass(2_500);
    await fitsItsWidth(PHONE.width);
    await isReadable();
    const small = await browser.value(`[...document.querySelectorAll('button, select, .shows a')]
      .filter((one) => one.getBoundingClientRect().height < 32).map((one) => one.innerText)`);
    assert.deepEqual(small, []);
    await browser.picture(join(folder, 'phone-dark.png'), { whole: true });
    await nothingStandsBesideItsPanel();
    await nothingIsLost();
  },

  async a_keyboard_is_enough_and_nothing_need_move() {
    await browser.open(`${address}?seed=3&play=0`, { ...DESKTOP, calm: true });
    const focused = 'document.activeElement.id || document.activeElement.dataset.key || document.activeElement.innerText';
    const seen = [];
    for (let tries = 0; tries < 60 && !seen.includes('share'); tries += 1) {
      await browser.press('Tab', 9);
      seen.push(await browser.value(focused));
      const ring = await browser.value('getComputedStyle(document.activeElement).outlineStyle');
      assert.notEqual(ring, 'none', `the focus on ${seen.at(-1)} is not seen`);
    }
    for (const control of ['0', 'fate', 'kill-0', 'freeze-1', 'cut', 'play', 'skip', 'events', 'share']) {
      assert.ok(seen.includes(control), `${control} of ${seen}`);
    }
    await browser.value('document.getElementById("kill-0").focus()');
    await browser.press('Enter', 13, '\r');
    assert.equal(await text('#kill-0'), 'Start');
    assert.match(await browser.value('document.getElementById("live").textContent'), /You kill Relay 1.*Rule 10/);
    assert.match(await browser.value('document.getElementById("summary").textContent'), /Relay 1: dead; starts in 5\.0 s/);
    assert.equal(await browser.value('getComputedStyle(document.querySelector(".chip") ?? document.body).transitionDuration'), '0s');
    // Time passes in steps that can be read.
    await browser.click('#play');
    await browser.until('playground.world.now > 900');
    await browser.click('#play');
    const { nodes } = await browser.send('Accessibility.getFullAXTree');
    const unnamed = nodes.filter(({ role, name, ignored }) => !ignored && ['button', 'combobox', 'checkbox', 'radio', 'link'].includes(role?.value) && !name?.value);
    assert.deepEqual(unnamed, []);
  },
};

try {
  await tests[test]();
  if (test !== 'an_address_is_a_run') assert.deepEqual(browser.complaints, []);
} finally {
  await browser.close();
}
