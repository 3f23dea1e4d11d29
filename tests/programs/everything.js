// Strings, maps, buffers, JSON, compression, hashes and worker threads.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { createHash } = require('crypto');
const zlib = require('zlib');

const hash = (data) => createHash('sha256').update(data).digest('hex').slice(0, 16);

function work(seed) {
    const map = new Map();
    let x = seed;
    for (let i = 0; i < 30000; i++) {
        x = (x * 1103515245 + 12345) % 2147483648;
        map.set('key' + (x % 5000), { i, text: 'v'.repeat(x % 50) });
    }
    const text = JSON.stringify([...map.entries()].sort());
    const packed = zlib.deflateSync(Buffer.from(text));
    if (zlib.inflateSync(packed).toString() !== text) throw new Error('inflate');
    const buffers = [];
    for (let i = 0; i < 2000; i++) buffers.push(Buffer.alloc((i * 37) % 9000, i % 256));
    return [text.length, hash(text), hash(Buffer.concat(buffers))];
}

if (isMainThread) {
    console.log(...work(1));
    const workers = [2, 3, 4].map((seed) => new Promise((resolve, reject) => {
        const worker = new Worker(__filename, { workerData: seed });
        worker.on('message', resolve).on('error', reject);
    }));
    Promise.all(workers).then((all) => {
        all.forEach((line) => console.log(...line));
        zlib.gzip(Buffer.alloc(1 << 20, 'slab'), (error, packed) => console.log(error, zlib.gunzipSync(packed).length));
    });
} else {
    parentPort.postMessage(work(workerData));
}
