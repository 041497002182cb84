from dataclasses import dataclass
from decimal import Decimal

from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from .products import PRODUCTS, Product

MOST = 9


@dataclass(frozen=True)
class Line:
    product: Product
    quantity: int

    @property
    def price(self) -> Decimal:
        return self.product.price * self.quantity


class Cart:
    """
    The cart of a visitor, signed in or not. It is kept in the session.

    Each product has its own entry in the session. django-sessionkit merges requests that run at the
    same time, entry by entry. If two tabs add two products at once, the cart has both.
    """

    def __init__(self, session: SessionBase) -> None:
        self.session = session

    @property
    def lines(self) -> list[Line]:
        quantities = ((product, self.session.get(_key(product), 0)) for product in PRODUCTS)
        return [Line(product, quantity) for product, quantity in quantities if quantity]

    @property
    def count(self) -> int:
        return sum(line.quantity for line in self.lines)

    @property
    def total(self) -> Decimal:
        return sum((line.price for line in self.lines), Decimal())

    def add(self, product: Product) -> None:
        key = _key(product)
        self.session[key] = min(self.session.get(key, 0) + 1, MOST)

    def remove(self, product: Product) -> None:
        self.session.pop(_key(product), None)

    def clear(self) -> None:
        for line in self.lines:
            self.remove(line.product)


def _key(product: Product) -> str:
    return f"cart:{product.slug}"


def context_processor(request: HttpRequest) -> dict[str, Cart]:
    return {"cart": Cart(request.session)}
