// Draws a snapshot of the world as SVG.

const NAMESPACE = 'http://www.w3.org/2000/svg';
const KEYS = ['A', 'B', 'C', 'D'];
const CHIP = { width: 42, copy: 38, height: 26 };

// Two layouts of the same parts: side by side, and one above the other.
const WIDE = {
  size: [1080, 468],
  service: { x: 1, y: 1, width: 396, height: 466 },
  transaction: { x: 17, y: 100, width: 364, height: 60 },
  outbox: { x: 17, y: 170, width: 364, height: 206, lane: 43, first: 40 },
  dead: { x: 17, y: 386, width: 364, height: 68 },
  relays: [{ x: 476, y: 10, width: 196, height: 212 }, { x: 476, y: 246, width: 196, height: 212 }],
  broker: { x: 763, y: 10, width: 316, height: 448, lane: 82, first: 88 },
  hands: { service: [17, 40, 364], relay: 148, broker: 392 },
  words: [[436, 229, 'claim →'], [436, 247, '← settle'], [717, 229, 'send →'], [717, 247, '← confirm']],
  wires: (layout, relay) => {
    const box = layout.relays[relay];
    const middle = box.y + box.height / 2;
    return {
      claim: [layout.outbox.x + layout.outbox.width, layout.outbox.y + 80 + relay * 46, box.x, middle],
      send: [box.x + box.width, middle, layout.broker.x, layout.broker.y + 150 + relay * 148],
    };
  },
};
const TALL = {
  size: [400, 928],
  service: { x: 1, y: 1, width: 398, height: 400 },
  transaction: { x: 13, y: 98, width: 374, height: 54 },
  outbox: { x: 13, y: 160, width: 374, height: 170, lane: 36, first: 34 },
  dead: { x: 13, y: 338, width: 374, height: 56 },
  relays: [{ x: 1, y: 440, width: 190, height: 190 }, { x: 209, y: 440, width: 190, height: 190 }],
  broker: { x: 1, y: 680, width: 398, height: 247, lane: 37, first: 54 },
  hands: { service: [13, 40, 374], relay: 134, broker: 192 },
  words: [[200, 425, 'claim ↓  ↑ settle'], [200, 660, 'send ↓  ↑ confirm']],
  wires: (layout, relay) => {
    const box = layout.relays[relay];
    const middle = box.x + box.width / 2;
    return {
      claim: [middle, layout.service.y + layout.service.height, middle, box.y],
      send: [middle, box.y + box.height, middle, layout.broker.y],
    };
  },
};

function element(name, attributes = {}, parent = null, text = null) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== null) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function set(target, attribute, value) {
  if (target.getAttribute(attribute) !== String(value)) target.setAttribute(attribute, value);
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;

export class Picture {
  constructor(svg) {
    this.svg = svg;
    this.narrow = window.matchMedia('(max-width: 60rem)');
    this.narrow.addEventListener('change', () => {
      this.build();
      if (this.world) this.draw(this.world);
    });
    this.build();
  }

  /// Everything that stays where it is.
  build() {
    const layout = (this.layout = this.narrow.matches ? TALL : WIDE);
    this.svg.replaceChildren();
    this.chips = new Map();
    this.svg.setAttribute('viewBox', `0 0 ${layout.size.join(' ')}`);
    this.svg.classList.toggle('tall', layout === TALL);

    this.wires = layout.relays.map((_, relay) => {
      const { claim, send } = layout.wires(layout, relay);
      const line = ([x1, y1, x2, y2], name) => element('line', { x1, y1, x2, y2, class: `wire ${name}` }, this.svg);
      return { claim: line(claim, 'claim'), send: line(send, 'send'), way: send };
    });

    for (const [x, y, text] of layout.words) element('text', { class: 'note', 'text-anchor': 'middle', x, y }, this.svg, text);
    this.box(layout.service, 'panel', 'Your service: change an order');
    this.part(layout.transaction, 'part', 'open transaction');
    this.rows = element('text', {
      class: 'note', 'text-anchor': 'end',
      x: layout.transaction.x + layout.transaction.width - 10, y: layout.transaction.y + 17,
    }, this.svg);
    this.part(layout.outbox, 'part outbox', 'outbox');
    KEYS.forEach((key, lane) => {
      const y = this.lane(layout.outbox, lane);
      element('line', { class: 'lane', x1: layout.outbox.x + 34, x2: layout.outbox.x + layout.outbox.width - 10, y1: y, y2: y }, this.svg);
      element('text', { class: `lane-key key-${lane}`, x: layout.outbox.x + 14, y: y + 5 }, this.svg, key);
    });
    this.part(layout.dead, 'part dead-letters', 'dead letters');

    this.relays = layout.relays.map((box, relay) => {
      const group = element('g', { class: 'relay' }, this.svg);
      element('rect', { ...box, rx: 12, class: 'panel' }, group);
      element('circle', { cx: box.x + 22, cy: box.y + 24, r: 11, class: `badge relay-${relay}` }, group);
      element('text', { x: box.x + 22, y: box.y + 28.5, class: 'badge-text', 'text-anchor': 'middle' }, group, relay + 1);
      element('text', { x: box.x + 40, y: box.y + 29, class: 'title' }, group, `Relay ${relay + 1}`);
      const state = element('text', { x: box.x + 14, y: box.y + this.layout.hands.relay - 26, class: 'note' }, group);
      const track = { x: box.x + 14, y: box.y + this.layout.hands.relay - 18, height: 7, rx: 3.5 };
      element('rect', { ...track, width: box.width - 28, class: 'track' }, group);
      const bar = element('rect', { ...track, width: 0, class: `bar relay-${relay}` }, group);
      return { group, state, bar, width: box.width - 28 };
    });

    const broker = element('g', { class: 'broker' }, this.svg);
    element('rect', { ...layout.broker, rx: 12, class: 'panel' }, broker);
    element('text', { x: layout.broker.x + 16, y: layout.broker.y + 29, class: 'title' }, broker, 'Broker');
    const state = element('text', {
      x: layout.broker.x + layout.broker.width - 14, y: layout.broker.y + 29, class: 'note', 'text-anchor': 'end',
    }, broker);
    const counts = KEYS.map((key, lane) => {
      const y = this.lane(layout.broker, lane);
      element('line', { class: 'lane', x1: layout.broker.x + 40, x2: layout.broker.x + layout.broker.width - 12, y1: y, y2: y }, broker);
      element('text', { class: `lane-key key-${lane}`, x: layout.broker.x + 16, y: y + 5 }, broker, key);
      return element('text', { class: 'note more', x: layout.broker.x + 40, y: y + 5 }, broker);
    });
    this.broker = { group: broker, state, counts };
    this.more = KEYS.map((_, lane) => element('text', {
      class: 'note more', 'text-anchor': 'end',
      x: layout.outbox.x + layout.outbox.width - 8, y: this.lane(layout.outbox, lane) + 5,
    }, this.svg));
    this.placeHands();
    this.moving = element('g', {}, this.svg);
    this.air = element('g', {}, this.svg);
  }

  /// The buttons stand in the picture, and are no part of it.
  placeHands() {
    const { size, hands, relays, broker } = this.layout;
    const places = {
      service: hands.service,
      broker: [broker.x + 14, broker.y + hands.broker, broker.width - 28],
    };
    relays.forEach((box, relay) => (places[`relay-${relay}`] = [box.x + 14, box.y + hands.relay, box.width - 28]));
    for (const [name, [x, y, width]] of Object.entries(places)) {
      const { style } = this.svg.parentElement.querySelector(`[data-place=${name}]`);
      style.left = `${(100 * x) / size[0]}%`;
      style.top = `${(100 * y) / size[1]}%`;
      style.width = `${(100 * width) / size[0]}%`;
    }
  }

  box(box, name, title) {
    element('rect', { ...box, rx: 12, class: name }, this.svg);
    element('text', { x: box.x + 16, y: box.y + 27, class: 'title' }, this.svg, title);
  }

  part({ x, y, width, height }, name, title) {
    element('rect', { x, y, width, height, rx: 8, class: name }, this.svg);
    element('text', { x: x + 12, y: y + 17, class: 'note' }, this.svg, title);
  }

  lane(box, lane) {
    return box.y + box.first + lane * box.lane + 6;
  }

  draw(world) {
    this.world = world;
    this.seen = new Set();
    this.drawStore(world);
    world.relays.forEach((relay, number) => this.drawRelay(world, relay, number));
    this.drawBroker(world);
    this.drawAir(world.broker.flights);
    for (const [name, chip] of this.chips) {
      if (!this.seen.has(name)) {
        chip.group.remove();
        this.chips.delete(name);
      }
    }
    write(this.rows, `orders: ${world.rows} changes`);
  }

  /// A message in some place; it moves there from where it was before.
  chip(name, { label, key, at, from, classes = '', badge = '', badgeClass = '' }) {
    this.seen.add(name);
    let chip = this.chips.get(name);
    if (!chip) {
      const group = element('g', {}, this.moving);
      const height = CHIP.height;
      const width = /^(copy|taken)/.test(classes) ? CHIP.copy : CHIP.width;
      element('rect', { x: -width / 2, y: -height / 2, width, height, rx: height / 2, class: 'body' }, group);
      const text = element('text', { y: 4.5, 'text-anchor': 'middle', class: 'label' }, group, label);
      const mark = element('g', { class: 'mark', transform: `translate(${width / 2 - 4} ${-height / 2 + 2})` }, group);
      const back = element('rect', { height: 16, y: -8, rx: 8 }, mark);
      const markText = element('text', { y: 3.5, 'text-anchor': 'middle' }, mark);
      chip = { group, text, mark, back, markText };
      this.chips.set(name, chip);
      if (from) {
        group.style.transform = `translate(${from[0]}px, ${from[1]}px)`;
        // So that the browser moves it from there.
        group.getBoundingClientRect();
      }
    }
    chip.group.style.transform = `translate(${at[0]}px, ${at[1]}px)`;
    set(chip.group, 'class', `chip key-${key} ${classes}`);
    set(chip.mark, 'class', `mark ${badgeClass} ${badge ? '' : 'none'}`);
    if (badge) {
      write(chip.markText, badge);
      const width = Math.max(16, 7 + badge.length * 6.5);
      set(chip.back, 'width', width);
      set(chip.back, 'x', -width / 2);
    }
  }

  drawStore(world) {
    const { outbox, transaction, dead } = this.layout;
    const places = [0, 0, 0, 0];
    const room = Math.floor((outbox.width - 60) / 52);
    let open = 0;
    let buried = 0;
    this.homes = new Map();
    for (const message of world.messages) {
      const { number, label, key, state } = message;
      const common = { label, key };
      if (state === 'open') {
        const at = [transaction.x + 36 + open++ * 52, transaction.y + transaction.height - 18];
        this.chip(`m${number}`, { ...common, at, classes: 'open' });
        continue;
      }
      if (state === 'dead') {
        const at = [dead.x + 36 + Math.min(buried++, 6) * 50, dead.y + dead.height - 22];
        this.chip(`m${number}`, { ...common, at, classes: 'dead', badge: '✕', badgeClass: 'alarm' });
        continue;
      }
      const place = places[key]++;
      if (place >= room) continue;
      const at = [outbox.x + 62 + place * 52, this.lane(outbox, key)];
      this.homes.set(number, at);
      let badge = '';
      let badgeClass = '';
      if (state === 'claimed' && message.relay !== null) {
        [badge, badgeClass] = [`${message.relay + 1}`, `relay-${message.relay}`];
      } else if (state === 'waiting') {
        [badge, badgeClass] = [message.left ? `${Math.ceil(message.left / 1000)}s` : '…', 'clock'];
      } else if (state === 'published') {
        [badge, badgeClass] = ['✓', 'good'];
      }
      const classes = `${state} ${message.is_bad ? 'bad' : ''}`;
      this.chip(`m${number}`, { ...common, at, classes, badge, badgeClass });
    }
    places.forEach((count, lane) => write(this.more[lane], count > room ? `+${count - room}` : ''));
  }

  drawRelay(world, relay, number) {
    const box = this.layout.relays[number];
    const { group, state, bar, width } = this.relays[number];
    set(group, 'class', `relay ${relay.state} ${relay.waits_for_broker ? 'waits' : ''}`);
    const part = relay.left === null ? 0 : Math.min(1, relay.left / world.lease);
    set(bar, 'width', (part * width).toFixed(1));
    set(bar, 'class', `bar relay-${number} ${part < 0.34 ? 'short' : ''}`);
    write(state, words(relay));
    relay.hand.slice(0, 4).forEach((held, place) => {
      const at = [box.x + 34 + (place % 4) * (width / 4), box.y + this.layout.hands.relay / 2 - 6];
      const from = this.homes.get(held.message);
      this.chip(`h${number}-${held.message}`, {
        ...held, at, from, classes: `copy ${held.is_stale ? 'stale' : ''}`,
      });
    });
    set(this.wires[number].claim, 'class', `wire claim ${relay.state} ${relay.hand.length ? 'busy' : ''}`);
    set(this.wires[number].send, 'class', `wire send ${relay.state} ${world.broker.is_up ? '' : 'cut'}`);
  }

  drawBroker({ broker }) {
    const box = this.layout.broker;
    set(this.broker.group, 'class', `broker ${broker.is_up ? '' : 'down'}`);
    write(this.broker.state, broker.is_up ? 'each key, in order of arrival' : 'cut off');
    broker.last.forEach((last, lane) => {
      const y = this.lane(box, lane);
      // The last of them, and how many came before, as far as there is room.
      const room = (first) => 1 + Math.floor((box.width - 26 - first) / 44);
      const taken = broker.taken[lane] > room(64) ? last.slice(-room(92)) : last;
      const hidden = broker.taken[lane] - taken.length;
      write(this.broker.counts[lane], hidden > 0 ? `${hidden} …` : '');
      taken.forEach(({ label, again }, place) => {
        const at = [box.x + (hidden > 0 ? 92 : 64) + place * 44, y];
        this.chip(`t${label}`, {
          label, key: lane, at, from: [box.x + 6, y], classes: 'taken',
          badge: again ? `×${again + 1}` : '', badgeClass: 'again',
        });
      });
    });
  }

  /// What is in the air is drawn anew each time: it moves by itself.
  drawAir(flights) {
    const marks = flights.map((flight) => {
      const [x1, y1, x2, y2] = this.wires[flight.relay].way;
      const x = x1 + (x2 - x1) * flight.way;
      const y = y1 + (y2 - y1) * flight.way;
      const outcome = flight.bounces ? 'refused' : 'confirmed';
      const group = element('g', {
        transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
        class: flight.is_answer ? `answer ${outcome}` : `flight key-${flight.key}`,
      });
      if (flight.is_answer) {
        element('circle', { r: 9 }, group);
        element('text', { y: 4, 'text-anchor': 'middle' }, group, flight.bounces ? '✕' : '✓');
      } else {
        element('rect', { x: -17, y: -11, width: 34, height: 22, rx: 11 }, group);
        element('text', { y: 4, 'text-anchor': 'middle' }, group, flight.label);
      }
      return group;
    });
    this.air.replaceChildren(...marks);
  }
}

function words(relay) {
  if (relay.state === 'dead') return `dead; starts in ${seconds(relay.starts_in ?? 0)}`;
  const held = relay.hand.some((one) => one.is_stale) ? 'its lease is lost' : null;
  if (relay.state === 'frozen') return held ? `frozen; ${held}` : 'frozen';
  if (held) return held;
  if (relay.left !== null) return `lease ${seconds(relay.left)}`;
  return relay.waits_for_broker ? 'waits for the broker' : 'looks for work';
}

/// The snapshot in words, for those who do not see it.
export function summary(world) {
  const list = (state) => world.messages.filter((one) => one.state === state).map((one) => one.label).join(', ') || 'none';
  const relays = world.relays.map((relay, number) => {
    const hand = relay.hand.map((held) => held.label).join(', ');
    return `Relay ${number + 1}: ${words(relay)}${hand ? `, holds ${hand}` : ''}.`;
  });
  const broker = world.broker.is_up ? 'The broker is there' : 'The broker is cut off';
  return `Due: ${list('pending')}. Claimed: ${list('claimed')}. Waiting: ${list('waiting')}. Dead: ${list('dead')}. ${relays.join(' ')} ${broker}.`;
}
