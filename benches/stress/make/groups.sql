-- 100 million rows of 50 million keys in no order.
with digits(d) as (values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)),
     thousands as (select a.d + 10 * b.d + 100 * c.d as n from digits a, digits b, digits c),
     numbers as (select cast(a.n + 1000 * b.n + 1000000 * c.n as bigint) as n from thousands a, thousands b, thousands c where c.n < 100)
select (n * 7919) % 50000000 as k, n % 1000 as v from numbers
