-- No rows: both ways of adding up agree.
SELECT totals.revenue, orders.revenue AS of_orders
FROM (SELECT sum(revenue) AS revenue FROM {{ ref('orders_by_country') }}) AS totals
CROSS JOIN (SELECT sum(price) AS revenue FROM {{ ref('orders') }}) AS orders
WHERE totals.revenue <> orders.revenue
