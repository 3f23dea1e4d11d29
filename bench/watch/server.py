# The Python server of the guide. It keeps what it was told, by number and in a list that nobody empties.
import json
import time


class Message:
    def __init__(self, number):
        self.number = number
        self.text = "a message with the number %d" % number


kept, history = {}, []


def receive(number):
    message = Message(number)
    kept[number % 5000] = message
    history.append(json.loads('{"from": "somebody", "number": %d}' % number))


number = 0
while True:
    for _ in range(20000 if number == 0 else 20):
        number += 1
        receive(number)
    if number == 20000:
        print("ready", flush=True)
    time.sleep(0.005)
