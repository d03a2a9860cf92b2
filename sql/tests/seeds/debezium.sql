--- 55
UPDATE my_table SET column_2 = 43 WHERE id = 123;
--- 318
CREATE SOURCE raw_pageviews
FROM KAFKA BROKER 'kafka:9092' TOPIC 'pageviews'
FORMAT BYTES;

CREATE SOURCE users
FROM KAFKA BROKER 'kafka:9092' TOPIC 'mysql.shop.users'
FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY 'http://schema-registry:8081' ENVELOPE DEBEZIUM;
--- 331
CREATE VIEW pageviews AS
  SELECT
    (pageview_data->'user_id')::INT as user_id,
    (pageview_data->'url')::STRING as url,
    (pageview_data->'channel')::STRING as channel,
    to_timestamp((pageview_data->'received_at')::INT) as ts
  FROM (
    SELECT convert_from(data, 'utf8')::jsonb AS pageview_data
    FROM raw_pageviews
  );
--- 354
  CREATE MATERIALIZED VIEW pageviews_by_user_segment AS
    SELECT
      users.is_vip,
      pageviews.channel,
      date_trunc('hour', pageviews.ts) as ts_hour,
      count(*) as pageview_count
    FROM users
    JOIN pageviews ON pageviews.user_id = users.id
    GROUP BY 1,2,3;
--- 373
SELECT * FROM pageviews_by_user_segment;
--- 396
CREATE SINK pageviews_by_user_segment_sink
FROM pageviews_by_user_segment
INTO KAFKA BROKER 'kafka' TOPIC 'pageviews-user-segment-sink'
FORMAT AVRO USING
    CONFLUENT SCHEMA REGISTRY 'http://schema-registry:8081';
