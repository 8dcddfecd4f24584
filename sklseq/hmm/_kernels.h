/* The chain kernels of one instruction set. */
#include "_reading.h"
#include "_lanes.h"
#include "_rows.h"

static const kernel_set FN(kernels) = {
    W, FN(rows_together), {FN(score_rows), FN(filter_rows), FN(smooth_rows), FN(viterbi_rows)},
    FN(lane_kernels), FN(fill_evidence), FN(read_item), FN(absorb_item), FN(pack_panels)};
