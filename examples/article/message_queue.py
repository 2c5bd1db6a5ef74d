"""The article's third program."""

from multiprocessing import Process, Queue


def sender(q):
    q.put("Hello from sender!")


def receiver(q):
    msg = q.get()
    print("Received message:", msg)


if __name__ == "__main__":
    queue = Queue()

    p1 = Process(target=sender, args=(queue,))
    p2 = Process(target=receiver, args=(queue,))

    p1.start()
    p2.start()

    p1.join()
    p2.join()
