"""Settings for all tests: one thread to each library, so that results repeat and CI is fair.

Array types and shapes of package ``angelo`` are checked by jaxtyping and beartype, switched on
in pyproject.toml (``--jaxtyping-packages``). That hook acts on first import, hence nothing here
may import ``angelo`` at module level.
"""

import os

from threadpoolctl import threadpool_limits

#: For libraries that load later and for subprocesses.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

#: For NumPy's BLAS, which the jaxtyping plugin has loaded by now. Kept: its end undoes it.
ONE_THREAD = threadpool_limits(limits=1)
