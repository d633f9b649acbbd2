// Drives a headless Chromium through its own protocol, over a pipe: no driver and no library to install.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { accessSync, constants } from 'node:fs';

const PROGRAMS = ['chromium', 'google-chrome', 'chromium-browser'];

function program() {
  for (const folder of process.env.PATH.split(delimiter)) {
    for (const name of PROGRAMS) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // The next one.
      }
    }
  }
  throw new Error(`there is no ${PROGRAMS.join(' or ')}; scripts/setup installs what the tests need`);
}

export class Browser {
  static async start() {
    const browser = new Browser();
    browser.profile = await mkdtemp(join(tmpdir(), 'pillarbox-browser-'));
    browser.process = spawn(program(), [
      '--headless=new', '--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage',
      '--disable-background-networking', '--disable-component-update', '--disable-extensions', '--hide-scrollbars',
      `--user-data-dir=${browser.profile}`, 'about:blank',
    ], { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] });
    let complaint = '';
    browser.process.stderr.setEncoding('utf8').on('data', (data) => (complaint = (complaint + data).slice(-2000)));
    browser.gone = new Promise((resolve) => browser.process.once('exit', resolve));
    // Whoever waits for an answer must not wait for ever.
    browser.gone.then((status) => {
      for (const { method, reject } of browser.calls.values()) reject(new Error(`${method}: Chromium ended with ${status}: ${complaint}`));
    });
    browser.last = 0;
    browser.calls = new Map();
    browser.listeners = [];
    let rest = '';
    browser.process.stdio[4].setEncoding('utf8');
    browser.process.stdio[4].on('data', (data) => {
      const parts = (rest + data).split('\0');
      rest = parts.pop();
      for (const part of parts) browser.receive(JSON.parse(part));
    });
    const { targetInfos } = await browser.send('Target.getTargets');
    const { targetId } = targetInfos.find(({ type }) => type === 'page');
    ({ sessionId: browser.session } = await browser.send('Target.attachToTarget', { targetId, flatten: true }));
    browser.complaints = [];
    browser.listeners.push(({ method, params }) => {
      if (method === 'Runtime.exceptionThrown') browser.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === 'Log.entryAdded' && params.entry.level === 'error') browser.complaints.push(params.entry.text);
    });
    for (const domain of ['Page', 'Runtime', 'Log']) await browser.send(`${domain}.enable`);
    return browser;
  }

  receive(message) {
    const call = this.calls.get(message.id);
    if (call) {
      this.calls.delete(message.id);
      if (message.error) call.reject(new Error(`${call.method}: ${message.error.message}`));
      else call.resolve(message.result);
    } else {
      this.listeners.forEach((listener) => listener(message));
    }
  }

  send(method, params = {}) {
    const id = ++this.last;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.calls.set(id, { method, resolve, reject }));
  }

  async open(address, { width, height, scale = 1, phone = false, dark = false, calm = false }) {
    this.window = { width, height, deviceScaleFactor: scale, mobile: phone };
    await this.send('Emulation.setDeviceMetricsOverride', this.window);
    await this.send('Emulation.setEmulatedMedia', {
      features: [
        { name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' },
        { name: 'prefers-reduced-motion', value: calm ? 'reduce' : 'no-preference' },
      ],
    });
    const loaded = new Promise((resolve) => {
      this.listeners.push(({ method }) => method === 'Page.loadEventFired' && resolve());
    });
    await this.send('Page.navigate', { url: address });
    await loaded;
    await this.until('window.playground || !document.getElementById("failure").hidden');
  }

  /// The value of an expression in the page.
  async value(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /// Waits for an expression to be true, frame by frame.
  until(expression) {
    return this.value(`new Promise((resolve, reject) => {
      const late = performance.now() + 20000;
      (function look() {
        if (${expression}) resolve(true);
        else if (performance.now() > late) reject(new Error('this did not become true'));
        else requestAnimationFrame(look);
      })();
    })`);
  }

  click(selector) {
    return this.value(`document.querySelector(${JSON.stringify(selector)}).click()`);
  }

  async press(key, code, text) {
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', key, code: key, windowsVirtualKeyCode: code, text });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', key, code: key, windowsVirtualKeyCode: code });
  }

  /// A picture of the window, or of a window that the whole page fits into, once nothing moves any more.
  async picture(path, { whole = false } = {}) {
    if (whole) {
      const { cssContentSize } = await this.send('Page.getLayoutMetrics');
      await this.send('Emulation.setDeviceMetricsOverride', { ...this.window, height: Math.ceil(cssContentSize.height) });
    }
    await this.until('document.getAnimations().every((one) => one.playState !== "running")');
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    await writeFile(path, Buffer.from(data, 'base64'));
  }

  async close() {
    await this.send('Browser.close').catch(() => {});
    await this.gone;
    await rm(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
