"""Reports. The fault: a long computation in Python, which holds up the other threads of its worker."""


def primes_below(limit):
    return [number for number in range(2, limit) if is_prime(number)]


def is_prime(number):
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 1
    return True


def year(number):
    return f"report of {number}: {len(primes_below(120_000))} items\n"
