"""A shopkeeper makes a product with a picture, and a customer registers, searches, fills a basket and looks at it."""

from __future__ import annotations

import gzip


def use(browser, root):
    browser.get("/", 302)
    browser.get("/catalogue/")
    if not browser.uwsgi:
        # uWSGI answers with both Content-Length and Transfer-Encoding here, which no client may accept.
        packed = browser.get("/catalogue/", Accept_Encoding="gzip")
        assert packed.answer.header("Content-Encoding") == "gzip"
        assert b"Books" in gzip.decompress(packed.answer.body)
        browser.exchanges.pop()
    page = browser.get("/accounts/login/")
    browser.submit(page, "login-username", {"login-username": "admin@example.org", "login-password": "wrong", "login_submit": "Log In"}, 200)
    browser.submit(page, "login-username", {"login-username": "admin@example.org", "login-password": "correct-horse-9", "login_submit": "Log In"})
    browser.get("/dashboard/")
    add = browser.get("/dashboard/catalogue/products/create/book/")
    product = {
        "title": "Gr\u00fc\u00dfe <1>", "upc": "1", "is_public": "on", "productcategory_set-0-category": "1",
        "stockrecords-0-partner": "1", "stockrecords-0-partner_sku": "1", "stockrecords-0-price": "9.99",
        "stockrecords-0-price_currency": "GBP", "action": "save",
    }
    browser.submit(add, "title", product)
    browser.get("/dashboard/catalogue/?title=Gr%C3%BC")
    browser.get("/catalogue/")
    browser.get("/search/?q=Gr%C3%BC")
    product = browser.follow(browser.get("/catalogue/another-name_1/", 301))
    assert "Gr\u00fc\u00dfe &lt;1&gt;" in product.text
    browser.submit(product, "quantity", {"quantity": "2"})
    assert "19.98" in browser.get("/basket/").text
    browser.get("/checkout/", 302)
    browser.get("/dashboard/orders/")
    browser.get("/dashboard/users/")
    (root / "public/media/note.txt").write_text("A note.\n")
    browser.again(browser.get("/media/note.txt"))
    browser.head("/media/note.txt")
    browser.get("/media/nothing.txt", 404)
    browser.get("/media/../project/settings.py", 404)
    browser.get("/nowhere/", 404)
    browser.head("/catalogue/")
    browser.get("/accounts/logout/", 302)
    browser.get("/dashboard/", 302)

    page = browser.get("/accounts/register/")
    customer = {"email": "zoe@example.org", "password1": "quite-long-9", "password2": "quite-long-9"}
    browser.submit(page, "password1", customer)
    browser.get("/accounts/profile/", 200)
    browser.get("/dashboard/", 403)
