# {} -> {"total": 12.5, "items": ["Item(name='pen', price=2.5, count=5)"], "sorted": ["pen"]}
from dataclasses import dataclass, field
from typing import List, Optional


@dataclass(order=True)
class Item:
    name: str
    price: float = 0.0
    count: int = 1

    @property
    def total(self) -> float:
        return self.price * self.count


@dataclass
class Inventory:
    items: List[Item] = field(default_factory=list)
    owner: Optional[str] = None

    def add(self, item: Item) -> "Inventory":
        self.items.append(item)
        return self

    def __len__(self) -> int:
        return len(self.items)

    def total(self) -> float:
        return sum(item.total for item in self.items)


def run() -> dict:
    inventory = Inventory().add(Item("pen", 2.5, 5))
    assert len(inventory) == 1
    return {
        "total": inventory.total(),
        "items": [repr(i) for i in inventory.items],
        "sorted": [i.name for i in sorted(inventory.items)],
    }
