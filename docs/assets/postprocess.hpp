// Detections from the raw output of an exported YOLO model: letterbox, decoding, angle, suppression.
//
// The C++17 twin of the best_postprocess.py that `ds2d2-yolo export` leaves beside a file. It needs the standard
// library alone. Fill in Model from the constants of that Python file, then for each image:
//
//     std::vector<float> input;
//     const auto frame = postprocess::letterbox(pixels, height, width, channels, model, input);
//     const float* output = run(input);  // the runtime of the board
//     for (const auto& box : postprocess::detect(output, rows, columns, frame, model)) { ... }

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace postprocess {

struct Model {
    int height = 640, width = 640;  // of the network's input, in pixels
    int classes = 1;
    bool rotated = true;   // oriented boxes: the last row of the output is the angle
    bool end2end = false;  // the network suppresses overlaps by itself
    float conf = 0.25f;    // score above which a detection counts
    float iou = 0.7f;      // overlap above which the higher score suppresses the lower one of the same class
    int max_det = 300;     // largest number of detections
};

// Place of an image in the network's input: pixels of the input over those of the image, and the borders in pixels of
// the input.
struct Frame {
    double scale;
    int left, top;
};

// Centre and sides in pixels, angle in radians.
struct Box {
    float x, y, w, h, angle, score;
    int label;
};

constexpr double kPi = 3.14159265358979323846;
constexpr float kPadding = 114.0f;  // grey of the letterbox's border
constexpr double kEps = 1e-7;       // of the overlap of oriented boxes

// One axis of a linear interpolation between pixel centres.
struct Samples {
    std::vector<int> first, second;
    std::vector<float> weight;

    Samples(int length, int size) {
        for (int i = 0; i < size; ++i) {
            const double position = std::clamp((i + 0.5) * length / size - 0.5, 0.0, length - 1.0);
            first.push_back(static_cast<int>(position));
            second.push_back(std::min(first.back() + 1, length - 1));
            weight.push_back(static_cast<float>(position - first.back()));
        }
    }
};

// Scale an image into the network's input, with a grey border. `image` is height x width x channels, RGB where there
// are 3; `input` becomes channels x model.height x model.width, from 0 to 1.
inline Frame letterbox(const std::uint8_t* image, int height, int width, int channels, const Model& model,
                       std::vector<float>& input) {
    const double scale = std::min(double(model.height) / height, double(model.width) / width);
    const int inner_height = static_cast<int>(std::nearbyint(height * scale));
    const int inner_width = static_cast<int>(std::nearbyint(width * scale));
    // the border is the same on both sides; of an odd one the larger part lies at the right and at the bottom
    const int left = static_cast<int>(std::nearbyint((model.width - inner_width) / 2.0 - 0.1));
    const int top = static_cast<int>(std::nearbyint((model.height - inner_height) / 2.0 - 0.1));
    input.assign(std::size_t(channels) * model.height * model.width, kPadding / 255.0f);
    const Samples rows(height, inner_height), columns(width, inner_width);
    for (int y = 0; y < inner_height; ++y) {
        for (int x = 0; x < inner_width; ++x) {
            for (int c = 0; c < channels; ++c) {
                const auto at = [&](int row, int column) {
                    return float(image[(std::size_t(row) * width + column) * channels + c]);
                };
                const auto vertical = [&](int column) {
                    return at(rows.first[y], column) * (1 - rows.weight[y]) +
                           at(rows.second[y], column) * rows.weight[y];
                };
                const float value = vertical(columns.first[x]) * (1 - columns.weight[x]) +
                                    vertical(columns.second[x]) * columns.weight[x];
                const std::size_t row = std::size_t(c) * model.height + top + y;
                input[row * model.width + left + x] = std::floor(value + 0.5f) / 255.0f;
            }
        }
    }
    return {scale, left, top};
}

// Return the predictions above the score, each with its best class, by falling score. `raw` is the output for one
// image, rows x columns: (4 + classes + angle) x anchors with x, y, w, h in pixels of the input; of an end-to-end model
// detections x (6 or 7).
inline std::vector<Box> decode(const float* raw, int rows, int columns, const Model& model) {
    std::vector<Box> boxes;
    const int count = model.end2end ? rows : columns;
    for (int i = 0; i < count; ++i) {
        const auto value = [&](int k) {
            return model.end2end ? raw[std::size_t(i) * columns + k] : raw[std::size_t(k) * columns + i];
        };
        Box box{value(0), value(1), value(2), value(3), 0.0f, value(4), 0};
        if (model.end2end) {
            box.label = static_cast<int>(value(5));
            if (!model.rotated) {  // corners
                box = {(value(0) + value(2)) / 2, (value(1) + value(3)) / 2, value(2) - value(0), value(3) - value(1),
                       0.0f, value(4), box.label};
            }
        } else {
            for (int c = 1; c < model.classes; ++c) {
                if (value(4 + c) > box.score) {
                    box.score = value(4 + c);
                    box.label = c;
                }
            }
        }
        if (model.rotated) {
            box.angle = value(model.end2end ? 6 : 4 + model.classes);
        }
        if (box.score > model.conf) {
            boxes.push_back(box);
        }
    }
    std::stable_sort(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.score > b.score; });
    return boxes;
}

// Return the IoU of two upright boxes.
inline double upright_overlap(const Box& a, const Box& b) {
    const double width = std::min(a.x + a.w / 2, b.x + b.w / 2) - std::max(a.x - a.w / 2, b.x - b.w / 2);
    const double height = std::min(a.y + a.h / 2, b.y + b.h / 2) - std::max(a.y - a.h / 2, b.y - b.h / 2);
    const double shared = std::max(width, 0.0) * std::max(height, 0.0);
    return shared / (double(a.w) * a.h + double(b.w) * b.h - shared);
}

// Covariance [[a, c], [c, b]] of a box as a normal distribution.
struct Covariance {
    double a, b, c;

    explicit Covariance(const Box& box) {
        const double w = double(box.w) * box.w / 12, h = double(box.h) * box.h / 12;
        const double cosine = std::cos(double(box.angle)), sine = std::sin(double(box.angle));
        a = w * cosine * cosine + h * sine * sine;
        b = w * sine * sine + h * cosine * cosine;
        c = (w - h) * cosine * sine;
    }

    double determinant() const { return std::max(a * b - c * c, 0.0); }
};

// Return the ProbIoU of two boxes (Llerena et al. 2021, arXiv 2106.06072): 1 - sqrt(1 - exp(-D)), with D the
// Bhattacharyya distance of the boxes as normal distributions.
inline double oriented_overlap(const Box& first, const Box& second) {
    const Covariance p(first), q(second);
    const double a = p.a + q.a, b = p.b + q.b, c = p.c + q.c;
    const double dx = double(first.x) - second.x, dy = double(first.y) - second.y;
    const double determinant = a * b - c * c;
    double distance = (a * dy * dy + b * dx * dx) / (determinant + kEps) / 4 - c * dx * dy / (determinant + kEps) / 2;
    const double product = p.determinant() * q.determinant();
    distance += std::log(determinant / (4 * std::sqrt(product) + kEps) + kEps) / 2;
    return 1 - std::sqrt(1 - std::exp(-std::clamp(distance, kEps, 100.0)) + kEps);
}

// Drop predictions that overlap one of the same class with a higher score. Oriented boxes are dropped by every higher
// score, dropped ones included, which is Ultralytics' Fast-NMS (Bolya et al., ICCV 2019, arXiv 1904.02689). Upright
// boxes are dropped by the higher scores that stay.
inline std::vector<Box> suppress(const std::vector<Box>& boxes, const Model& model) {
    std::vector<bool> stays(boxes.size(), true);
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        if (!stays[i] && !model.rotated) {
            continue;
        }
        for (std::size_t k = i + 1; k < boxes.size(); ++k) {
            if (boxes[k].label == boxes[i].label && stays[k]) {
                const double overlap =
                    model.rotated ? oriented_overlap(boxes[i], boxes[k]) : upright_overlap(boxes[i], boxes[k]);
                stays[k] = overlap <= model.iou;
            }
        }
    }
    std::vector<Box> left;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        if (stays[i]) {
            left.push_back(boxes[i]);
        }
    }
    return left;
}

// Return the detections of an image, by falling score: in pixels of the image, angles from 0 to below pi / 2.
inline std::vector<Box> detect(const float* raw, int rows, int columns, const Frame& frame, const Model& model) {
    std::vector<Box> boxes = decode(raw, rows, columns, model);
    if (!model.end2end) {
        boxes = suppress(boxes, model);
    }
    boxes.resize(std::min(boxes.size(), std::size_t(model.max_det)));
    for (Box& box : boxes) {
        box.x = static_cast<float>((box.x - frame.left) / frame.scale);
        box.y = static_cast<float>((box.y - frame.top) / frame.scale);
        box.w = static_cast<float>(box.w / frame.scale);
        box.h = static_cast<float>(box.h / frame.scale);
        const auto modulo = [](double value, double period) { return value - period * std::floor(value / period); };
        if (modulo(box.angle, kPi) >= kPi / 2) {
            std::swap(box.w, box.h);
        }
        box.angle = static_cast<float>(modulo(box.angle, kPi / 2));
    }
    return boxes;
}

}  // namespace postprocess
