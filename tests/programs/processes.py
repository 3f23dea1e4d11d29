"""Processes that fork from a program with threads, and that start afresh; pipes, queues and pools."""
import multiprocessing
import os
import subprocess
import threading


def squares(number):
    return sum(int(s) for s in [str(number * i) for i in range(2000)])


def answer(questions, answers):
    for question in iter(questions.get, None):
        answers.put((question, squares(question)))


def main():
    forked = multiprocessing.get_context("fork")
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            [str(i) * 10 for i in range(100)]

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    with forked.Pool(3) as pool:
        print(sum(pool.map(squares, range(200), chunksize=7)))
    stop.set()
    for thread in threads:
        thread.join()

    questions, answers = forked.Queue(), forked.Queue()
    workers = [forked.Process(target=answer, args=(questions, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for number in range(100):
        questions.put(number)
    for _ in workers:
        questions.put(None)
    found = sorted(answers.get() for _ in range(100))
    for worker in workers:
        worker.join()
    print(found[:3], sum(value for _, value in found), [worker.exitcode for worker in workers])

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(squares, range(10)))

    for number in range(30):
        child = os.fork()
        if child == 0:
            os._exit(squares(number) % 251)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == squares(number) % 251
    print(subprocess.run(["sh", "-c", "echo $((6 * 7))"], capture_output=True, text=True).stdout, end="")


if __name__ == "__main__":
    main()
