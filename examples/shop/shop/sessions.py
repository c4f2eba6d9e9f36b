"""Sessions. The fault: nothing ever leaves the dictionary."""

import itertools

sessions = {}
numbers = itertools.count()


class Session:
    """What is known of somebody who has logged in."""

    def __init__(self, user):
        self.user = user
        self.history = [f"{user} page {number}" for number in range(200)]


def login(user):
    sessions[next(numbers)] = Session(user)
    return f"welcome {user}, you are session {len(sessions)}\n"
