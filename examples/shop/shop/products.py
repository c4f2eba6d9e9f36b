"""Products: nothing is wrong here."""


def show(number):
    return f"product {number}\n"
