"""The article's second program, without its race: the reader starts after the
writer has ended."""

from multiprocessing import Array, Process, Value


def writer(val, arr):
    val.value = 5
    for i in range(len(arr)):
        arr[i] = i * 2


def reader(val, arr):
    print("Value:", val.value)
    print("Array:", arr[:])


if __name__ == "__main__":
    value = Value("i", 0)
    array = Array("i", range(10))

    p1 = Process(target=writer, args=(value, array))
    p1.start()
    p1.join()

    p2 = Process(target=reader, args=(value, array))
    p2.start()
    p2.join()
