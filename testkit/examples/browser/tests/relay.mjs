// Runs a relay in Node's event loop, through the code that wasm-bindgen wrote. Every fifth message finds no queue at first.
const { relay } = (await import(process.argv[2])).default;
const count = Number(process.argv[3]);

const taken = [];
const refused = new Set();
let finish;
const all = new Promise((resolve) => {
  finish = resolve;
});

async function publish(payload) {
  await new Promise((soon) => setTimeout(soon, 1));
  const number = Number(payload);
  if (number % 5 === 0 && !refused.has(number)) {
    refused.add(number);
    throw new Error('no queue is bound');
  }
  taken.push(number);
  if (taken.length === count) finish();
}

await relay(count, publish, all);
console.log(JSON.stringify({ taken, refused: refused.size }));
