-- Nearly as many groups as rows: 436 MiB at scale factor 1.
select count(*), sum(q)
from (
    select l_partkey, l_suppkey, l_shipdate, sum(l_quantity) as q from lineitem group by l_partkey, l_suppkey, l_shipdate
)
