// The world is a WebAssembly module that imports nothing: JSON in, JSON out, through its memory.

export async function load(address) {
  const { instance } = await WebAssembly.instantiateStreaming(fetch(address), {});
  const { memory, input, call, output } = instance.exports;
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  return (request) => {
    const bytes = encoder.encode(JSON.stringify({ playground: request }));
    // First the room, then the buffer: the memory may have grown, and has another one then.
    const place = input(bytes.length);
    new Uint8Array(memory.buffer, place, bytes.length).set(bytes);
    const length = call();
    const answer = JSON.parse(decoder.decode(new Uint8Array(memory.buffer, output(), length)));
    if (answer.error) throw new Error(answer.error);
    return answer;
  };
}

// What can be watched: a script each, played from its beginning.
export const SHOWS = [
  {
    name: 'a relay dies',
    address: '?seed=1&script=0c0.0o0.200o0.400o1.600o2.2600k0.2600k1.15000c1',
    caption:
      'Both relays die with messages in the air. What the broker got before is not settled yet, so it comes again, with the same id. What it did not get waits in the outbox until the lease runs out.',
  },
  {
    name: 'the broker goes away',
    address: '?seed=3&script=0c0.0o0.300o1.600o2.900o3.2300x0.10000x1.16000c1',
    caption:
      'An outage is no message’s fault: the relays give everything back uncharged, ask from time to time, and go on when the broker answers.',
  },
  {
    name: 'a relay freezes',
    address: '?seed=1&script=0c0.0o0.200o1.400o2.600o3.2000f0.11000t0.16000c1',
    caption:
      'A relay stands still for longer than its lease, wakes up, and reports as if nothing had happened. Another one has taken over: its token is stale, and it is fenced off.',
  },
  {
    name: 'an answer is lost',
    address: '?seed=1&script=0c0.0o0.200o1.1000l0.12000c1',
    caption:
      'The outbox takes a relay’s report, and the line breaks before it can say so. The relay cannot know, and reports the same again: it gets the same answer, and nothing is counted twice.',
  },
  {
    name: 'a message is poisonous',
    address: '?seed=2&script=0c0.0u0.300o0.600o0.900o1.17000c1',
    caption:
      'No queue takes A1. It is tried three times and becomes a dead letter. Then choose “Block” below: the same run, and A2 and A3 wait until you decide about A1.',
  },
  {
    name: 'a message kills',
    address: '?seed=4&script=0c0.0o1.0d0.0o2.0o3.60000c1',
    caption:
      'A1 kills every relay that sends it. Each time the run that is handed out gets shorter, until A1 stands alone and is buried. The others arrive meanwhile. Try 3 ×.',
  },
];
