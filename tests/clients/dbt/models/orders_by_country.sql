{{ config(
    materialized='materialized_view',
    indexes=[{'columns': ['country']}]
) }}

SELECT
    countries.code AS country,
    countries.name,
    count(*) AS orders,
    sum(orders.price) AS revenue
FROM {{ ref('orders') }} AS orders
JOIN {{ ref('countries') }} AS countries ON countries.code = orders.country
GROUP BY countries.code, countries.name
