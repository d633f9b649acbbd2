// Runs a crate's unit tests. A test that fails traps; standard output goes nowhere on this target.
import { readFile } from 'node:fs/promises';

const { instance } = await WebAssembly.instantiate(await readFile(process.argv[2]), {});
const status = instance.exports.main(0, 0);
if (status !== 0) throw new Error(`the tests ended with ${status}`);
console.log('passed');
