CREATE SOURCE IF NOT EXISTS auction_house
    FROM LOAD GENERATOR AUCTION (TICK INTERVAL '100ms')
    FOR ALL TABLES;

CREATE MATERIALIZED VIEW IF NOT EXISTS auction_totals AS
    SELECT count(*) AS bids, sum(amount) AS total, max(amount) AS highest, avg(amount) AS average
    FROM bids;

CREATE MATERIALIZED VIEW IF NOT EXISTS top_auctions AS
    SELECT auctions.id, auctions.item, count(*) AS bids, max(bids.amount) AS highest
    FROM auctions
    JOIN bids ON bids.auction_id = auctions.id
    GROUP BY auctions.id, auctions.item
    ORDER BY highest DESC, auctions.id
    LIMIT 10;

CREATE MATERIALIZED VIEW IF NOT EXISTS winning_bids AS
    SELECT DISTINCT ON (auctions.id) auctions.id AS auction_id, auctions.item, bids.buyer, bids.amount
    FROM auctions
    JOIN bids ON bids.auction_id = auctions.id
    ORDER BY auctions.id, bids.amount DESC, bids.bid_time, bids.buyer;
