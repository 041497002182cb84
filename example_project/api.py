"""The shop's API for apps, in REST framework. It takes the session that the request has."""

from django.http import Http404
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import CharField, DecimalField, IntegerField, Serializer
from rest_framework.views import APIView

from django_sessionkit.api.authentication import SessionAuthentication

from .cart import Cart
from .products import PRODUCTS


class LineSerializer(Serializer):  # type: ignore[misc]  # REST framework has no types
    slug = CharField(source="product.slug")
    name = CharField(source="product.name")
    quantity = IntegerField()
    price = DecimalField(max_digits=8, decimal_places=2)


class CartSerializer(Serializer):  # type: ignore[misc]
    lines = LineSerializer(many=True)
    total = DecimalField(max_digits=8, decimal_places=2)


class CartView(APIView):  # type: ignore[misc]
    """The cart of the user. POST puts one more of a product into it."""

    authentication_classes = (SessionAuthentication,)
    permission_classes = (IsAuthenticated,)
    serializer_class = CartSerializer

    def get(self, request: Request) -> Response:
        return Response(CartSerializer(Cart(request._request.session)).data)

    def post(self, request: Request) -> Response:
        products = {product.slug: product for product in PRODUCTS}
        product = products.get(str(request.data.get("product", "")))
        if product is None:
            raise Http404
        Cart(request._request.session).add(product)
        return self.get(request)
