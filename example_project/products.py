"""The products of the shop. They are not in the database, to keep the example small."""

from dataclasses import dataclass
from decimal import Decimal

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True)
class Product:
    slug: str
    name: str | Promise
    description: str | Promise
    price: Decimal

    @property
    def picture(self) -> str:
        return f"shop/products/{self.slug}.svg"


PRODUCTS = (
    Product(
        "kettle",
        _("Gooseneck kettle"),
        _("Pours slowly and exactly where you want it. Holds 0.9 litres."),
        Decimal("58.00"),
    ),
    Product(
        "teapot",
        _("Stoneware teapot"),
        _("Thrown by hand, glazed in deep green, with a strainer of steel."),
        Decimal("42.00"),
    ),
    Product(
        "cups",
        _("Pair of cups"),
        _("Two cups without handles, thin enough to feel the warmth."),
        Decimal("24.00"),
    ),
    Product(
        "sencha",
        _("Sencha, 100 g"),
        _("First harvest from Kagoshima: fresh, grassy and a little sweet."),
        Decimal("14.50"),
    ),
    Product(
        "assam",
        _("Assam, 100 g"),
        _("Malty and strong. It can take a splash of milk."),
        Decimal("9.80"),
    ),
    Product(
        "whisk",
        _("Bamboo whisk"),
        _("Carved from one piece of bamboo, for matcha with a fine foam."),
        Decimal("19.00"),
    ),
)
