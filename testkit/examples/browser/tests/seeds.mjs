// Prints the hash of the history of each seed.
import { load } from './module.mjs';

const [path, first, count] = process.argv.slice(2);
const call = await load(path);
console.log(call({ hashes: { first: Number(first), count: Number(count) } }).join('\n'));
