{{ config(materialized='view') }}

SELECT
    id,
    country,
    item,
    price::numeric(10, 2) AS price,
    ordered_at
FROM {{ ref('raw_orders') }}
