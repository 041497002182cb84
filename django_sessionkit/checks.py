from typing import Any


def check_settings(**kwargs: Any) -> list[Any]:
    return []


def check_deployment(**kwargs: Any) -> list[Any]:
    return []
