// Time, clicks and words. What happens is decided by the world.
import { load, SHOWS } from './world.js';
import { Picture, summary } from './picture.js';

const SHOWN_EVENTS = 80;
const get = (id) => document.getElementById(id);
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');

class Playground {
  constructor(call) {
    this.call = call;
    this.picture = new Picture(get('picture'));
    this.playing = new URLSearchParams(location.search).get('play') !== '0';
    this.frame = null;
    this.drawnAt = 0;
    this.bind();
    this.open();
    requestAnimationFrame((time) => this.tick(time));
  }

  /// Begins the run that the address names.
  open(to = 0) {
    this.search = location.search;
    const asked = new URLSearchParams(location.search);
    this.seed = Math.abs(Math.trunc(Number(asked.get('seed') ?? 1))) || 1;
    this.blocks = asked.get('policy') === 'block';
    const script = asked.get('script') ?? '';
    get('events').replaceChildren();
    get('live').replaceChildren();
    document.querySelectorAll('.rules .met').forEach((rule) => rule.classList.remove('met'));
    write(get('met'), 'none');
    this.show(this.call({ open: { seed: this.seed, blocks: this.blocks, script, to } }));
    get('seed').textContent = this.seed;
    document.querySelector(`input[name=policy][value=${this.blocks ? 'block' : 'continue'}]`).checked = true;
    const address = `?seed=${this.seed}&script=${script}`;
    const watched = SHOWS.find((show) => script && address.startsWith(show.address));
    get('caption').hidden = !watched;
    get('caption').textContent = watched?.caption ?? '';
  }

  /// Names the run in the address.
  address(script) {
    const policy = this.blocks ? '&policy=block' : '';
    const paused = this.playing ? '' : '&play=0';
    history.replaceState(null, '', `?seed=${this.seed}${policy}${script ? `&script=${script}` : ''}${paused}${location.hash}`);
    this.search = location.search;
  }

  advance(milliseconds) {
    this.show(this.call({ advance: { to: Math.floor(this.world.now + milliseconds) } }));
  }

  act(act) {
    this.show(this.call({ act: { act } }));
    this.address(this.world.script);
  }

  tick(time) {
    requestAnimationFrame((next) => this.tick(next));
    const passed = Math.min(250, time - (this.frame ?? time));
    this.frame = time;
    if (!this.playing) return;
    this.owed = (this.owed ?? 0) + passed * Number(get('speed').value);
    // Without motion the picture changes twice a second.
    if (this.owed < 1 || (calm.matches && time - this.drawnAt < 500)) return;
    this.drawnAt = time;
    const whole = Math.floor(this.owed);
    this.owed -= whole;
    this.advance(whole);
  }

  bind() {
    const click = (id, what) => get(id).addEventListener('click', () => guarded(what));
    click('play', () => this.play(!this.playing));
    click('skip', () => this.advance(1000));
    click('expire', () => this.advance((this.world.next_lease_end ?? 0) + 20));
    document.querySelectorAll('[data-key]').forEach((button) => {
      button.addEventListener('click', () => guarded(() => this.act(`${get('fate').value}${button.dataset.key}`)));
    });
    click('customers', () => this.act(this.world.customers ? 'c0' : 'c1'));
    for (const relay of [0, 1]) {
      click(`kill-${relay}`, () => this.act(`${this.world.relays[relay].state === 'dead' ? 's' : 'k'}${relay}`));
      click(`freeze-${relay}`, () => this.act(`${this.world.relays[relay].state === 'frozen' ? 't' : 'f'}${relay}`));
    }
    click('cut', () => this.act(this.world.broker.is_up ? 'x0' : 'x1'));
    document.querySelectorAll('input[name=policy]').forEach((radio) => {
      radio.addEventListener('change', () => guarded(() => {
        const { now, script } = this.world;
        this.blocks = radio.value === 'block';
        this.address(script);
        this.open(now);
      }));
    });
    click('again-button', () => this.open());
    click('fresh', () => {
      this.seed = 1 + Math.floor(Math.random() * 99_999);
      this.address('');
      this.open();
    });
    click('share', () => this.share());
    get('routine').addEventListener('change', (event) => {
      get('events').classList.toggle('notable-only', !event.target.checked);
      get('events').scrollTop = get('events').scrollHeight;
    });
    get('letters').addEventListener('click', (event) => {
      const act = event.target.closest('button')?.dataset.act;
      if (act) guarded(() => this.act(act));
    });
    for (const show of SHOWS) {
      const link = document.createElement('a');
      [link.href, link.textContent] = [show.address, show.name];
      link.addEventListener('click', (event) => {
        event.preventDefault();
        guarded(() => {
          history.pushState(null, '', `${show.address}${this.playing ? '' : '&play=0'}`);
          this.open();
        });
      });
      const item = document.createElement('li');
      item.append(link);
      get('shows').append(item);
    }
    // A link to a rule changes the address too, and begins nothing.
    window.addEventListener('popstate', () => {
      if (location.search !== this.search) guarded(() => this.open());
    });
  }

  play(on) {
    this.playing = on;
    get('play').textContent = on ? 'Pause' : 'Play';
    this.address(this.world.script);
  }

  async share() {
    const address = new URL(location.href);
    address.searchParams.delete('play');
    try {
      await navigator.clipboard.writeText(address.href);
      get('shared').textContent = 'The link is copied.';
    } catch {
      get('shared').textContent = `Copy it from here: ${address.href}`;
    }
  }

  show(world) {
    this.world = world;
    this.picture.draw(world);
    this.tell(world.events);
    const { totals, relays, broker } = world;
    for (const [name, value] of Object.entries(totals)) {
      const place = get(name);
      if (place) write(place, String(value));
    }
    for (const name of ['lost', 'disordered']) get(name).parentElement.classList.toggle('broken', totals[name] > 0);
    write(get('clock'), `${(world.now / 1000).toFixed(1)} s`);
    write(get('play'), this.playing ? 'Pause' : 'Play');
    get('expire').disabled = world.next_lease_end === null;
    write(get('customers'), world.customers ? 'No more customers' : 'Let customers come');
    relays.forEach((relay, number) => {
      write(get(`kill-${number}`), relay.state === 'dead' ? 'Start' : 'Kill');
      write(get(`freeze-${number}`), relay.state === 'frozen' ? 'Thaw' : 'Freeze');
      get(`freeze-${number}`).disabled = relay.state === 'dead';
    });
    write(get('cut'), broker.is_up ? 'Cut it off' : 'Connect it again');
    const clicks = world.script ? world.script.split('.').length : 0;
    write(get('acts'), `${clicks} ${clicks === 1 ? 'click' : 'clicks'}`);
    this.letters(world.messages.filter((message) => message.state === 'dead'));
    write(get('summary'), summary(world));
  }

  /// Rebuilt only when it changes, so that the focus stays where it is.
  letters(dead) {
    const numbers = dead.map((letter) => letter.number).join();
    get('no-letters').hidden = dead.length > 0;
    if (numbers === this.listed) return;
    this.listed = numbers;
    const had = document.activeElement?.closest('#letters') !== null && document.activeElement !== null;
    get('letters').replaceChildren(...dead.map(({ number, label, reason }) => {
      const item = document.createElement('li');
      const why = document.createElement('span');
      why.innerHTML = '<b></b> <small></small>';
      why.firstChild.textContent = label;
      why.lastChild.textContent = reason ?? '';
      item.append(why);
      for (const [act, name] of [['r', 'Repair and redrive'], ['z', 'Discard']]) {
        const button = document.createElement('button');
        button.type = 'button';
        button.dataset.act = `${act}${number}`;
        button.textContent = name;
        button.setAttribute('aria-label', `${name} ${label}`);
        item.append(button);
      }
      return item;
    }));
    if (had) (get('letters').querySelector('button') ?? get('controls')).focus();
  }

  tell(events) {
    if (events.length === 0) return;
    const list = get('events');
    const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    for (const { rule } of events) if (rule) meet(rule);
    for (const event of events.slice(-SHOWN_EVENTS)) {
      list.append(item(event));
      if (event.kind !== 'routine') announce(event);
    }
    while (list.children.length > SHOWN_EVENTS) list.firstChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }
}

function item({ at, rule, kind, text }) {
  const made = document.createElement('li');
  made.className = kind;
  const time = document.createElement('time');
  time.textContent = (at / 1000).toFixed(1);
  const badge = document.createElement(rule ? 'a' : 'span');
  badge.className = 'rule';
  badge.textContent = rule ? `Rule ${rule}` : 'Outbox';
  if (rule) badge.href = `#rule-${rule}`;
  if (!rule && kind === 'act') badge.textContent = 'You';
  const words = document.createElement('span');
  for (const part of text.split(/\b([A-D]\d+)\b/)) {
    if (/^[A-D]\d+$/.test(part)) {
      const label = document.createElement('b');
      label.className = `key-${'ABCD'.indexOf(part[0])}`;
      label.textContent = part;
      words.append(label);
    } else {
      words.append(part);
    }
  }
  made.append(time, badge, words);
  return made;
}

function announce({ rule, text }) {
  const live = get('live');
  const line = document.createElement('p');
  line.textContent = rule ? `${text} Rule ${rule}.` : text;
  live.append(line);
  while (live.children.length > 6) live.firstChild.remove();
}

/// Marks a rule that the run has shown.
function meet(rule) {
  get(`rule-${rule}`).classList.add('met');
  write(get('met'), String(document.querySelectorAll('.rules .met').length));
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function fail(error) {
  get('failure').hidden = false;
  get('failure').textContent = `Something went wrong: ${error.message}. The world starts anew when you reload the page without what follows “?”.`;
}

function guarded(what) {
  try {
    get('failure').hidden = true;
    what();
  } catch (error) {
    fail(error);
  }
}

try {
  window.playground = new Playground(await load('playground.wasm'));
} catch (error) {
  fail(error);
}
