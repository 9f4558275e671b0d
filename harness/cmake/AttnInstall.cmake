# find_package(attnbench) and attnbench_add_plugin() for projects elsewhere.
