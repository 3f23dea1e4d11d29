"""Threads that compress, hash and hand results on; zlib and hashlib let go of the interpreter's lock."""
import hashlib
import queue
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

jobs, results = queue.Queue(maxsize=16), queue.Queue()


def work():
    while (job := jobs.get()) is not None:
        number, data = job
        packed = zlib.compress(data, 1)
        assert zlib.decompress(packed) == data
        results.put((number, len(packed), hashlib.sha256(packed).hexdigest()))


threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for number in range(200):
    jobs.put((number, b"".join(b"%d " % (number * i) for i in range(5000))))
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()
found = sorted(results.queue)
print(len(found), sum(length for _, length, _ in found))
print(hashlib.sha256(repr(found).encode()).hexdigest())


def brief(number):
    local = threading.local()
    local.data = [str(number + i) for i in range(1000)]
    return sum(len(s) for s in local.data)


with ThreadPoolExecutor(max_workers=8) as pool:
    print(sum(pool.map(brief, range(500))))
for start in range(0, 400, 8):
    batch = [threading.Thread(target=brief, args=(start + i,)) for i in range(8)]
    for thread in batch:
        thread.start()
    for thread in batch:
        thread.join()
print("done")
