// Runs a relay in Node's event loop, through the code that wasm-bindgen wrote.
const { relay } = (await import(process.argv[2])).default;
console.log(`[${(await relay(Number(process.argv[3]))).join(',')}]`);
