{{ config(
    materialized='materialized_view',
    indexes=[{'default': True}]
) }}

-- depends_on: {{ ref('auction_house') }}
SELECT auction_id, count(*) AS bids, max(amount) AS highest
FROM {{ source('auction', 'bids') }}
GROUP BY auction_id
