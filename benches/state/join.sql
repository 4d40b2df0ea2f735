-- The build side is orders with their comments: 237 MiB at scale factor 1.
select count(*), max(o_comment), min(l_shipdate), max(o_clerk) from lineitem join orders on l_orderkey = o_orderkey
