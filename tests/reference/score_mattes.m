% Scores mattes by the formulas of Rhemann et al. 2009, in single precision as MATLAB code for 8-bit
% mattes usually does. Written for comparison with kmatting.scoring.metrics; runs in Octave and MATLAB.
%
% list:   text file; each line names three files, separated by tabs: true alpha, predicted alpha, and
%         a trimap in which 128 is unknown. Each holds height and width as little-endian uint32,
%         then the levels row by row as uint8 (imread of Octave reads a binary PNG as 0 and 1).
% output: CSV file to write; each line has, over the whole image and then over the unknown pixels:
%         SAD/1000, MSE, MAD, gradient/1000, connectivity/1000, IoU; then twice gradient/1000 of
%         mattes stretched to [0, 1].
function score_mattes(list, output)
  if exist('OCTAVE_VERSION', 'builtin')
    pkg load image
  end
  lines = strsplit(strtrim(fileread(list)), sprintf('\n'));
  out = fopen(output, 'w');
  for k = 1:numel(lines)
    names = strsplit(lines{k}, sprintf('\t'));
    levels_true = read_levels(names{1});
    levels_pred = read_levels(names{2});
    alpha_true = single(levels_true) / 255;
    alpha_pred = single(levels_pred) / 255;
    gradient = gradient_map(alpha_true, alpha_pred);
    stretched = gradient_map(mat2gray(levels_true), mat2gray(levels_pred));
    connectivity = connectivity_map(alpha_true, alpha_pred);
    regions = {true(size(alpha_true)), read_levels(names{3}) == 128};
    row = [];
    for r = 1:2
      inside = regions{r};
      distance = abs(double(alpha_true(inside)) - double(alpha_pred(inside)));
      opaque_true = alpha_true(inside) >= 0.5;
      opaque_pred = alpha_pred(inside) >= 0.5;
      row = [row, sum(distance) / 1000, mean(distance .^ 2), mean(distance), ...
             sum(gradient(inside)) / 1000, sum(double(connectivity(inside))) / 1000, ...
             sum(opaque_true & opaque_pred) / sum(opaque_true | opaque_pred)];
    end
    row = [row, sum(stretched(:)) / 1000, sum(stretched(regions{2})) / 1000];
    fprintf(out, '%s\n', strjoin(arrayfun(@(x) sprintf('%.12g', x), row, 'UniformOutput', false), ','));
  end
  fclose(out);
end

function errors = gradient_map(one, other)
  errors = (gradient_magnitude(one) - gradient_magnitude(other)) .^ 2;
end

function magnitude = gradient_magnitude(alpha)
  sigma = 1.4;
  half = ceil(sigma * sqrt(-2 * log(sqrt(2 * pi) * sigma * 1e-2)));
  [column, row] = meshgrid(-half:half, -half:half);
  kernel = -column .* exp(-(column .^ 2 + row .^ 2) / (2 * sigma ^ 2));
  kernel = kernel / norm(kernel, 'fro');
  padded = padarray(double(alpha), [half, half], 'replicate');
  magnitude = sqrt(conv2(padded, kernel, 'valid') .^ 2 + conv2(padded, kernel', 'valid') .^ 2);
end

function errors = connectivity_map(one, other)
  thresholds = 0:0.1:1;
  level = ones(size(one), 'single');
  inside = true(size(one));
  for k = 2:numel(thresholds)
    components = bwconncomp(one >= thresholds(k) & other >= thresholds(k), 4);
    source = false(size(one));
    if components.NumObjects > 0
      [~, largest] = max(cellfun(@numel, components.PixelIdxList));
      source(components.PixelIdxList{largest}) = true;
    end
    leaving = inside & ~source;
    level(leaving) = thresholds(k - 1);
    inside = inside & source;
  end
  errors = abs(disconnected(one, level) - disconnected(other, level));
end

function above = disconnected(alpha, level)
  above = alpha - level;
  above(above < 0.15) = 0;
end

function levels = read_levels(name)
  file = fopen(name, 'r', 'ieee-le');
  shape = fread(file, [1, 2], 'uint32');
  levels = fread(file, [shape(2), shape(1)], 'uint8=>uint8')';
  fclose(file);
end
