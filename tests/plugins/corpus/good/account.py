# {} -> [3, 3]
class Account:
    _count = 0

    def __init__(self, owner, balance=0.0):
        self.owner = owner
        self.__balance = balance
        Account._count += 1
        self.__class__._count += 1
        type(self)._count += 1

    @property
    def balance(self):
        return self.__balance


def run():
    a = Account("x", 3)
    return [a.balance, Account._count]
