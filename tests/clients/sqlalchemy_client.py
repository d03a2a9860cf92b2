"""SQLAlchemy against a node, over psycopg 3, psycopg 2 and asyncpg: reflection of everything, Core, ORM, and what pandas-like tools do."""

import asyncio
import sys
from datetime import datetime, timezone
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

port = int(sys.argv[1])


def url(driver):
    return f"postgresql+{driver}://materialize@127.0.0.1:{port}/materialize"


def prepare(engine):
    """What is reflected: a schema with a table, a view, a materialized view and indexes. The schema `auction` has tables with keys."""
    with engine.connect() as connection:
        for statement in (
            "CREATE SCHEMA sa",
            "CREATE TABLE sa.orders (id int NOT NULL, item varchar(20), price numeric(10,2) DEFAULT 0, tags text[], body jsonb,"
            " at timestamptz, ok bool NOT NULL DEFAULT true, ref uuid, span interval, raw bytea, f double precision, small smallint)",
            "COMMENT ON TABLE sa.orders IS 'what people order'",
            "COMMENT ON COLUMN sa.orders.item IS 'which thing'",
            "CREATE VIEW sa.cheap AS SELECT id, item FROM sa.orders WHERE price < 10",
            "CREATE MATERIALIZED VIEW sa.totals AS SELECT item, sum(price) AS total FROM sa.orders GROUP BY item",
            "CREATE INDEX totals_item ON sa.totals (item)",
            "CREATE INDEX orders_id_item ON sa.orders (id, upper(item))",
        ):
            connection.execute(sa.text(statement))


def reflect(engine):
    inspector = sa.inspect(engine)
    assert inspector.default_schema_name == "public"
    assert {"public", "sa"} <= set(inspector.get_schema_names()), inspector.get_schema_names()
    assert inspector.get_table_names("sa") == ["orders"], inspector.get_table_names("sa")
    assert inspector.get_view_names("sa") == ["cheap"], inspector.get_view_names("sa")
    assert inspector.get_materialized_view_names("sa") == ["totals"]
    assert inspector.has_table("orders", "sa") and not inspector.has_table("nothing", "sa")
    assert inspector.has_table("totals", "sa") and inspector.has_schema("sa") and not inspector.has_schema("nothing")

    columns = {column["name"]: column for column in inspector.get_columns("orders", "sa")}
    assert list(columns) == ["id", "item", "price", "tags", "body", "at", "ok", "ref", "span", "raw", "f", "small"], columns
    expected = {
        "id": sa.INTEGER,
        "item": sa.VARCHAR,
        "price": sa.NUMERIC,
        "tags": postgresql.ARRAY,
        "body": postgresql.JSONB,
        "at": postgresql.TIMESTAMP,
        "ok": sa.BOOLEAN,
        "ref": sa.UUID,
        "span": postgresql.INTERVAL,
        "raw": postgresql.BYTEA,
        "f": sa.DOUBLE_PRECISION,
        "small": sa.SMALLINT,
    }
    for name, kind in expected.items():
        assert isinstance(columns[name]["type"], kind), (name, columns[name])
    assert columns["item"]["type"].length == 20
    assert (columns["price"]["type"].precision, columns["price"]["type"].scale) == (10, 2)
    assert columns["at"]["type"].timezone is True
    assert isinstance(columns["tags"]["type"].item_type, sa.TEXT)
    assert not columns["id"]["nullable"] and columns["item"]["nullable"]
    assert columns["price"]["default"] == "0" and columns["id"]["default"] is None, columns["price"]
    assert columns["item"]["comment"] == "which thing"
    assert inspector.get_table_comment("orders", "sa") == {"text": "what people order"}
    assert "sa.orders" in inspector.get_view_definition("cheap", "sa")
    assert "sum" in inspector.get_view_definition("totals", "sa")

    # A table that statements write has no key; those of a generator have the generator's.
    assert inspector.get_pk_constraint("orders", "sa")["constrained_columns"] == []
    assert inspector.get_pk_constraint("bids", "auction")["constrained_columns"] == ["id"], inspector.get_pk_constraint("bids", "auction")
    assert inspector.get_foreign_keys("bids", "auction") == []
    assert inspector.get_unique_constraints("orders", "sa") == [] and inspector.get_check_constraints("orders", "sa") == []
    (index,) = inspector.get_indexes("totals", "sa")
    assert (index["name"], index["column_names"], index["unique"]) == ("totals_item", ["item"], False), index
    (index,) = inspector.get_indexes("orders", "sa")
    assert (index["name"], index["column_names"]) == ("orders_id_item", ["id", None]), index
    assert index["expressions"][0] == "id" and "upper" in index["expressions"][1], index
    assert inspector.get_sequence_names("sa") == [] and inspector.get_enums("sa") == [] and inspector.get_domains("sa") == []

    metadata = sa.MetaData()
    metadata.reflect(engine, schema="sa", views=True)
    assert set(metadata.tables) == {"sa.orders", "sa.cheap", "sa.totals"}, set(metadata.tables)
    metadata = sa.MetaData()
    metadata.reflect(engine, schema="auction")
    assert [column.name for column in metadata.tables["auction.bids"].primary_key] == ["id"]
    assert set(sa.inspect(engine).get_multi_columns("sa", kind=sa.engine.reflection.ObjectKind.ANY)) == {("sa", "orders"), ("sa", "cheap"), ("sa", "totals")}
    return sa.Table("orders", sa.MetaData(), schema="sa", autoload_with=engine)


def core(engine, autocommit, orders):
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    with autocommit.connect() as connection:
        connection.execute(orders.delete())
    with engine.begin() as connection:
        connection.execute(
            orders.insert(),
            [
                {"id": number, "item": f"item {number % 3}", "price": Decimal("1.50") * number, "tags": ["a", "b"], "body": {"n": number}, "at": at}
                for number in range(10)
            ],
        )
    with engine.connect() as connection:
        total = connection.execute(sa.select(sa.func.sum(orders.c.price)).where(orders.c.item.in_(["item 0", "item 1"]))).scalar_one()
        assert total == Decimal("45.00"), total
        row = connection.execute(sa.select(orders).where(orders.c.id == 3)).one()
        assert (row.tags, row.body, row.at, row.ok) == (["a", "b"], {"n": 3}, at, True), row
        page = connection.execute(sa.select(orders.c.id).order_by(orders.c.id.desc()).limit(3).offset(2)).scalars().all()
        assert page == [7, 6, 5], page
        nested = connection.execute(sa.select(orders.c.id).where(orders.c.body["n"].astext.cast(sa.Integer) > 7).order_by("id")).scalars().all()
        assert nested == [8, 9], nested
    with engine.connect().execution_options(stream_results=True, yield_per=4) as connection:
        assert [row.id for row in connection.execute(sa.select(orders.c.id).order_by(orders.c.id))] == list(range(10))


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = {"schema": "sa"}
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    item: Mapped[str | None]
    price: Mapped[Decimal | None]


def orm(engine, autocommit):
    with Session(engine) as session:
        session.add_all([Order(id=100, item="new", price=Decimal("5")), Order(id=101, item="new", price=Decimal("6"))])
        session.commit()
    with Session(engine) as session:
        found = session.scalars(sa.select(Order).where(Order.item == "new").order_by(Order.id)).all()
        assert [(order.id, order.price) for order in found] == [(100, Decimal("5.00")), (101, Decimal("6.00"))], found
    # UPDATE and DELETE are transactions of their own.
    with Session(autocommit) as session:
        session.execute(sa.update(Order).where(Order.id == 100).values(item="old"))
        session.execute(sa.delete(Order).where(Order.id == 101))
    with Session(engine) as session:
        assert session.scalars(sa.select(Order.item).where(Order.id >= 100)).all() == ["old"]


async def asynchronous():
    engine = create_async_engine(url("asyncpg"))
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names("sa")) == ["orders"]
        names = await connection.run_sync(lambda sync: [column["name"] for column in sa.inspect(sync).get_columns("totals", "sa")])
        assert names == ["item", "total"], names
        assert (await connection.execute(sa.text("SELECT :a + 1"), {"a": 1})).scalar_one() == 2
    await engine.dispose()


def autocommitting(driver):
    """For a whole engine: SQLAlchemy knows no STRICT SERIALIZABLE, so it cannot go back to it from another level of one connection."""
    return sa.create_engine(url(driver), isolation_level="AUTOCOMMIT")


prepare(autocommitting("psycopg"))
for driver in ("psycopg", "psycopg2"):
    engine, autocommit = sa.create_engine(url(driver)), autocommitting(driver)
    orders = reflect(engine)
    core(engine, autocommit, orders)
    orm(engine, autocommit)
    engine.dispose()
    autocommit.dispose()
asyncio.run(asynchronous())
print("ok")
